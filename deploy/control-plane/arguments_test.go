package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	serveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

func flagsWith(t *testing.T, dir string) (map[string]string, error) {
	t.Helper()
	o, err := parse([]string{"--pki-dir=" + dir})
	if err != nil {
		t.Fatal(err)
	}
	return serverFlags(o, &runtimeFiles{authentication: "authentication.yaml"})
}

// pkiFolder has a front-proxy CA and, as Portico makes it, the aggregator's pair of that CA.
func pkiFolder(t *testing.T, name string, now time.Time) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := makeAuthority(filepath.Join(dir, "front-proxy-ca.crt"), filepath.Join(dir, "front-proxy-ca.key"), "front-proxy-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	l := leaf{"aggregator", ca, pkix.Name{CommonName: name}, x509.ExtKeyUsageClientAuth, nil}
	if err := l.ensure(dir, now); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What an extension server does with the certificate, by the CA and the names that the API server publishes.
func TestExtensionServersBelieveTheAggregator(t *testing.T) {
	now := time.Now()
	dir := pkiFolder(t, "front-proxy-client", now)
	flags, err := flagsWith(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if flags["requestheader-allowed-names"] != "portico-gateway,front-proxy-client" {
		t.Errorf("allowed names: %s", flags["requestheader-allowed-names"])
	}
	cert, err := readCertificate(flags["proxy-client-cert-file"])
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(flags["requestheader-client-ca-file"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(","+flags["requestheader-allowed-names"]+",", ","+cert.Subject.CommonName+",") {
		t.Errorf("%s is not allowed", cert.Subject.CommonName)
	}
	if _, err := os.Stat(flags["proxy-client-key-file"]); err != nil {
		t.Error(err)
	}
}

func TestTheFlagsAreKubeAPIServersOwn(t *testing.T) {
	flags, err := flagsWith(t, pkiFolder(t, "front-proxy-client", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	known := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, named := range serveroptions.NewServerRunOptions().Flags().FlagSets {
		known.AddFlagSet(named)
	}
	for name := range flags {
		if known.Lookup(name) == nil {
			t.Errorf("--%s is unknown", name)
		}
	}
}

// A pod that starts on a Secret of before must start.
func TestWithoutAnAggregatorsCertificateAllIsAsBefore(t *testing.T) {
	flags, err := flagsWith(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if flags["requestheader-allowed-names"] != "portico-gateway" || flags["proxy-client-cert-file"] != "" {
		t.Errorf("%v", flags)
	}
}

func TestHalfAPairOrANamelessCertificateIsNamed(t *testing.T) {
	dir := pkiFolder(t, "", time.Now())
	if _, err := flagsWith(t, dir); err == nil || !strings.Contains(err.Error(), "common name") {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, aggregatorKey)); err != nil {
		t.Fatal(err)
	}
	if _, err := flagsWith(t, dir); err == nil || !strings.Contains(err.Error(), aggregatorKey) {
		t.Error(err)
	}
}
