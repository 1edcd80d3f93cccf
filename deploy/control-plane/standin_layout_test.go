package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/keyutil"
)

var start = time.Unix(1_800_000_000, 0)

func layoutIn(t *testing.T, dir string, now time.Time, more ...string) *layout {
	t.Helper()
	l, err := makeLayout(mustParse(t, with(append([]string{"--data-dir=" + dir, "--write-kubeconfig=" + filepath.Join(dir, "out", "k.yaml")}, more...)...)), false, now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func certificate(t *testing.T, l *layout, name string) *x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(l.file(name + ".crt"))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := parseCertificates(content)
	if err != nil {
		t.Fatal(name, err)
	}
	return certs[0]
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[entry.Name()] = string(content)
	}
	return all
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	l := layoutIn(t, dir, start, "--tls-san=one.test,10.1.2.3", "--tls-san", "two.test")
	for _, ca := range []string{serverCA, clientCA, requestHeaderCA} {
		cert := certificate(t, l, ca)
		if !regexp.MustCompile(`^k3s-`+ca+`@1800000000$`).MatchString(cert.Subject.CommonName) || !cert.IsCA || cert.NotAfter.Before(start.AddDate(9, 11, 0)) {
			t.Errorf("%s: %s until %s", ca, cert.Subject, cert.NotAfter)
		}
	}
	for name, want := range map[string]string{
		"client-admin": "CN=system:admin,O=system:masters", "client-auth-proxy": "CN=system:auth-proxy",
		"client-controller": "CN=system:kube-controller-manager", "client-kube-apiserver": "CN=system:apiserver,O=system:masters",
		"serving-kube-apiserver": "CN=kube-apiserver",
	} {
		if got := certificate(t, l, name).Subject.String(); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	serving := certificate(t, l, "serving-kube-apiserver")
	for _, name := range []string{"kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1", "10.96.0.1", "one.test", "two.test", "10.1.2.3"} {
		if err := serving.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	for name, mode := range map[string]os.FileMode{
		"tls/server-ca.key": 0o600, "tls/service.key": 0o600, "tls/service.current.key": 0o600, "tls/client-admin.key": 0o600,
		"token": 0o600, "cred/admin.kubeconfig": 0o600, "../out/k.yaml": 0o600,
	} {
		if info, err := os.Stat(filepath.Join(l.server, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	token, err := os.ReadFile(filepath.Join(l.server, "node-token"))
	if err != nil || !regexp.MustCompile(`^K10[0-9a-f]{64}::server:[0-9a-f]{32}\n$`).Match(token) {
		t.Errorf("%s %v", token, err)
	}
}

func TestKubeconfigs(t *testing.T) {
	dir := t.TempDir()
	l := layoutIn(t, dir, start, "--write-kubeconfig-mode=640")
	embedded, err := clientcmd.LoadFromFile(filepath.Join(dir, "out", "k.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cluster, user := embedded.Clusters["default"], embedded.AuthInfos["default"]
	if cluster.Server != "https://127.0.0.1:6443" || len(cluster.CertificateAuthorityData) == 0 || len(user.ClientCertificateData) == 0 || len(user.ClientKeyData) == 0 {
		t.Errorf("%+v %+v", cluster, user)
	}
	byPath, err := clientcmd.LoadFromFile(filepath.Join(l.cred, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	cluster, user = byPath.Clusters["default"], byPath.AuthInfos["default"]
	if cluster.Server != "https://127.0.0.1:6444" || cluster.CertificateAuthority != l.file("server-ca.crt") || user.ClientCertificate != l.file("client-admin.crt") || user.ClientKey != l.file("client-admin.key") {
		t.Errorf("%+v %+v", cluster, user)
	}
	if info, err := os.Stat(filepath.Join(dir, "out", "k.yaml")); err != nil || info.Mode().Perm() != 0o640 {
		t.Error(info, err)
	}
}

func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	l := layoutIn(t, dir, start)
	first := contents(t, l.tls)
	layoutIn(t, dir, start.Add(leafLife-leafRenewal-time.Hour))
	for name, content := range contents(t, l.tls) {
		if content != first[name] {
			t.Errorf("%s is renewed too early", name)
		}
	}
	layoutIn(t, dir, start.Add(leafLife-leafRenewal+time.Hour))
	second := contents(t, l.tls)
	for name, content := range second {
		leaf := strings.HasSuffix(name, ".crt") && !strings.HasSuffix(name, "-ca.crt")
		if (content != first[name]) != leaf {
			t.Errorf("%s: changed is %v", name, !leaf)
		}
	}
	// A name that is not there yet is a reason as well, for this one certificate.
	layoutIn(t, dir, start.Add(leafLife-leafRenewal+time.Hour), "--tls-san=new.test")
	for name, content := range contents(t, l.tls) {
		if (content != second[name]) != (name == "serving-kube-apiserver.crt") {
			t.Errorf("%s after a new name", name)
		}
	}
}

// What somebody else has placed is used and never written: it may be a read-only mount.
func TestAuthoritiesOfOthers(t *testing.T) {
	dir := t.TempDir()
	tls := filepath.Join(dir, "server", "tls")
	if err := os.MkdirAll(tls, 0o700); err != nil {
		t.Fatal(err)
	}
	other := layoutIn(t, t.TempDir(), start)
	for name, kind := range map[string]string{serverCA: "PRIVATE KEY", clientCA: "EC PRIVATE KEY", requestHeaderCA: "PRIVATE KEY"} {
		a := other.authorities[name]
		write(t, filepath.Join(tls, name+".crt"), string(a.pem))
		write(t, filepath.Join(tls, name+".key"), keyAs(t, kind, a.key.(*ecdsa.PrivateKey)))
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tls, "service.key"), keyAs(t, "EC PRIVATE KEY", own))
	before := contents(t, tls)
	l := layoutIn(t, dir, start)
	after := contents(t, tls)
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s is written", name)
		}
	}
	if err := certificate(t, l, "client-admin").CheckSignatureFrom(certificate(t, other, clientCA)); err != nil {
		t.Error(err)
	}
	if current := after["service.current.key"]; current != before["service.key"] {
		t.Error("the current key is another one")
	}
}

// Kubernetes reads no EC key in PKCS#8 where k3s gives it the service key. When it does, the refusal can go.
func TestServiceKeyThatKubernetesCannotRead(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for kind, good := range map[string]bool{"EC PRIVATE KEY": true, "PRIVATE KEY": false} {
		content := keyAs(t, kind, key)
		write(t, filepath.Join(dir, "service.key"), content)
		_, kubernetes := keyutil.ParsePublicKeysPEM([]byte(content))
		ours := ensureServiceKey(dir)
		if (kubernetes == nil) != good || (ours == nil) != good {
			t.Errorf("%s: %v, %v", kind, kubernetes, ours)
		}
	}
}

func TestHalfAnAuthority(t *testing.T) {
	dir := t.TempDir()
	l := layoutIn(t, dir, start)
	other := layoutIn(t, t.TempDir(), start)
	o := mustParse(t, with("--data-dir="+dir, "--write-kubeconfig="+filepath.Join(dir, "k.yaml")))
	write(t, l.file("client-ca.key"), keyAs(t, "EC PRIVATE KEY", other.authorities[clientCA].key.(*ecdsa.PrivateKey)))
	if _, err := makeLayout(o, false, start); err == nil || !strings.Contains(err.Error(), "is not the key of") {
		t.Error(err)
	}
	if err := os.Remove(l.file("client-ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := makeLayout(o, false, start); err == nil || !strings.Contains(err.Error(), "client-ca.key") {
		t.Error(err)
	}
}

func TestSharedDatabaseNeedsSharedAuthorities(t *testing.T) {
	dir := t.TempDir()
	o := mustParse(t, with("--data-dir="+dir, "--write-kubeconfig="+filepath.Join(dir, "k.yaml"), "--datastore-endpoint=https://e:2379"))
	if _, err := makeLayout(o, true, start); err == nil || !strings.Contains(err.Error(), "server-ca.crt") || !strings.Contains(err.Error(), standInSingle) {
		t.Error(err)
	}
	t.Setenv(standInSingle, "1")
	if _, err := makeLayout(o, true, start); err != nil {
		t.Error(err)
	}
	t.Setenv(standInSingle, "")
	if _, err := makeLayout(o, true, start); err != nil {
		t.Error("they are there now:", err)
	}
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	l := layoutIn(t, dir, start)
	read := func() string { return contentOf(t, filepath.Join(l.server, "token")) }
	made := read()
	layoutIn(t, dir, start)
	if read() != made {
		t.Error("the token of the first start is lost")
	}
	layoutIn(t, dir, start, "--token=mine")
	if !strings.HasSuffix(read(), "::server:mine\n") {
		t.Error(read())
	}
}

func TestEtcdBelongsToAnAddress(t *testing.T) {
	db := t.TempDir()
	first, second := &etcdMember{db, "10.0.0.1"}, &etcdMember{db, "10.0.0.2"}
	if first.reset() == nil {
		t.Error("nothing to reset")
	}
	if err := os.MkdirAll(filepath.Join(db, "etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		do   func() error
		good bool
	}{{first.claim, true}, {first.claim, true}, {second.claim, false}, {second.reset, true}, {second.reset, false}, {second.claim, true}, {second.reset, true}, {first.claim, false}} {
		if err := step.do(); (err == nil) != step.good {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func keyAs(t *testing.T, kind string, key *ecdsa.PrivateKey) string {
	t.Helper()
	marshal := x509.MarshalPKCS8PrivateKey
	if kind == "EC PRIVATE KEY" {
		marshal = func(any) ([]byte, error) { return x509.MarshalECPrivateKey(key) }
	}
	der, err := marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestNamesInOrder(t *testing.T) {
	// Two starts must come to the same names, or the certificate would change at each.
	dir := t.TempDir()
	a, b := layoutIn(t, dir, start), layoutIn(t, dir, start)
	if !slices.Equal(a.sans, b.sans) {
		t.Error(a.sans, b.sans)
	}
}
