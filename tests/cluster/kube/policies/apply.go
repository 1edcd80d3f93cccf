package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sort"
	"strings"
)

// table is asked before kube-proxy's, which lets pass whatever it has marked, wherever its rules come to stand.
const table = "mangle"

// hooks are the kernel's own chains that lead to ours. FORWARD is between pods and to the outside, behind the translation of
// Services; INPUT is from pods to their node. What a node itself sends is always let through.
var hooks = []string{"FORWARD", "INPUT"}

// firewall is the kernel's, in this network namespace or another.
type firewall struct {
	// Before each command: `ip netns exec NAME`.
	prefix []string
	// What is there by now; nothing where that is not known.
	applied rules
}

// apply makes the kernel's rules what they should be, in one step. Chains that are no longer needed go in the same one. When
// nothing is to be changed it looks whether the kernel's own chains still lead to ours.
func (f *firewall) apply(ctx context.Context, all rules) error {
	known := f.applied != nil
	if !known || all.text() != f.applied.text() {
		old := f.applied.names()
		if !known {
			var err error
			if old, err = f.chains(ctx); err != nil {
				return err
			}
		}
		f.applied = nil
		if err := f.run(ctx, all.replacing(old), "iptables-restore", "-w", "--noflush"); err != nil {
			return err
		}
		if known {
			f.applied = all
			return nil
		}
	}
	for _, hook := range hooks {
		rule := []string{"-w", "-t", table, "-C", hook, "-j", mainChain}
		if f.run(ctx, "", "iptables", rule...) == nil {
			continue
		}
		rule[3] = "-I"
		if err := f.run(ctx, "", "iptables", rule...); err != nil {
			return err
		}
	}
	f.applied = all
	return nil
}

// chains are those of ours that the kernel has.
func (f *firewall) chains(ctx context.Context) ([]string, error) {
	out, err := f.command(ctx, "iptables-save", "-t", table).Output()
	if err != nil {
		return nil, fmt.Errorf("iptables-save: %w", err)
	}
	var found []string
	for _, line := range strings.Split(string(out), "\n") {
		if name, _, _ := strings.Cut(strings.TrimPrefix(line, ":"), " "); strings.HasPrefix(line, ":"+mainChain) {
			found = append(found, name)
		}
	}
	return found, nil
}

func (f *firewall) run(ctx context.Context, input, name string, arguments ...string) error {
	command := f.command(ctx, name, arguments...)
	command.Stdin = strings.NewReader(input)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return nil
}

func (f *firewall) command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	all := append(append([]string{}, f.prefix...), name)
	all = append(all, arguments...)
	return exec.CommandContext(ctx, all[0], all[1:]...)
}

func (r rules) text() string { return r.replacing(nil) }

func (r rules) names() []string {
	names := make([]string, 0, len(r))
	for name := range r {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// replacing is the input of `iptables-restore --noflush`: each chain that it names is emptied first.
func (r rules) replacing(old []string) string {
	names := r.names()
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", table)
	var gone []string
	for _, name := range old {
		if _, stays := r[name]; !stays {
			gone = append(gone, name)
		}
	}
	for _, name := range append(append([]string{}, names...), gone...) {
		fmt.Fprintf(&b, ":%s - [0:0]\n", name)
	}
	for _, name := range names {
		for _, rule := range r[name] {
			fmt.Fprintf(&b, "-A %s %s\n", name, rule)
		}
	}
	for _, name := range gone {
		fmt.Fprintf(&b, "-X %s\n", name)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}
