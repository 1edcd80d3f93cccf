package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The machine that runs tests has zone files, the image has none, so that only what is linked tells.
func TestTimeZonesAreEmbedded(t *testing.T) {
	command := exec.Command("go", "list", "-deps", ".")
	command.Stderr = &strings.Builder{}
	packages, err := command.Output()
	if err != nil {
		t.Fatal(err, command.Stderr)
	}
	if !slices.Contains(strings.Fields(string(packages)), "time/tzdata") {
		t.Error("time/tzdata is not linked: the image has no other time zones")
	}
}
