package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// layout is where k3s keeps its files, below --data-dir.
type layout struct {
	server, tls, cred string
	authorities       map[string]*authority
	// Names and addresses of the serving certificates.
	sans []string
	// That of the Service kubernetes' endpoints.
	advertise string
}

// The names of the authorities' files, and of k3s' subjects after "k3s-".
const (
	serverCA        = "server-ca"
	clientCA        = "client-ca"
	requestHeaderCA = "request-header-ca"
)

func (l *layout) file(name string) string { return filepath.Join(l.tls, name) }
func (l *layout) db() string              { return filepath.Join(l.server, "db") }
func (l *layout) member() *etcdMember     { return &etcdMember{db: l.db(), address: l.advertise} }

// makeLayout leaves every file that is good as it is.
func makeLayout(o *standInOptions, shared bool, now time.Time) (*layout, error) {
	server := filepath.Join(o.dataDir, "server")
	l := &layout{server: server, tls: filepath.Join(server, "tls"), cred: filepath.Join(server, "cred"), authorities: map[string]*authority{}}
	for _, dir := range []string{o.dataDir, l.server, l.tls, l.cred} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if shared {
		if err := l.requireAuthorities(); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{serverCA, clientCA, requestHeaderCA} {
		a, err := loadAuthority(l.tls, name, now)
		if err != nil {
			return nil, err
		}
		l.authorities[name] = a
	}
	if err := ensureServiceKey(l.tls); err != nil {
		return nil, err
	}
	if err := l.chooseNames(o); err != nil {
		return nil, err
	}
	for _, leaf := range l.leaves() {
		if err := leaf.ensure(l.tls, now); err != nil {
			return nil, err
		}
	}
	return l, errors.Join(l.writeToken(o.token), l.writeKubeconfigs(o))
}

// requireAuthorities: k3s hands its authorities from replica to replica through the database, the stand-in does not.
func (l *layout) requireAuthorities() error {
	if os.Getenv(standInSingle) == "1" {
		return nil
	}
	authorities := []string{serverCA + ".crt", serverCA + ".key", clientCA + ".crt", clientCA + ".key", requestHeaderCA + ".crt", requestHeaderCA + ".key", "service.key"}
	if missing := missingFiles(l.tls, authorities); len(missing) > 0 {
		return fmt.Errorf("with a shared database every replica needs the same authorities, which k3s keeps in the database and the stand-in does not: "+
			"put %s into %s, or set %s=1 if this is the only replica and keeps its folder", strings.Join(missing, ", "), l.tls, standInSingle)
	}
	return nil
}

func (l *layout) chooseNames(o *standInOptions) error {
	ips, err := o.serviceIPs()
	if err != nil {
		return err
	}
	service := "kubernetes.default.svc." + o.clusterDomain
	l.sans = append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", service, "localhost", "127.0.0.1", "::1"}, ips...)
	if host, err := os.Hostname(); err == nil {
		l.sans = append(l.sans, host)
	}
	// Without a default route there is none.
	if own, err := utilnet.ChooseHostInterface(); err == nil {
		l.sans = append(l.sans, own.String())
		l.advertise = own.String()
	}
	if o.advertiseAddress != "" {
		l.sans = append(l.sans, o.advertiseAddress)
		l.advertise = o.advertiseAddress
	}
	l.sans = append(l.sans, o.tlsSANs...)
	return nil
}

func (l *layout) leaves() []leaf {
	client := func(file, ca, name string, groups ...string) leaf {
		return leaf{file, l.authorities[ca], pkix.Name{CommonName: name, Organization: groups}, x509.ExtKeyUsageClientAuth, nil}
	}
	return []leaf{
		client("client-admin", clientCA, "system:admin", "system:masters"),
		client("client-controller", clientCA, "system:kube-controller-manager"),
		client("client-kube-apiserver", clientCA, "system:apiserver", "system:masters"),
		client("client-auth-proxy", requestHeaderCA, "system:auth-proxy"),
		l.serving("serving-kube-apiserver", pkix.Name{CommonName: "kube-apiserver"}),
	}
}

func (l *layout) serving(file string, name pkix.Name) leaf {
	return leaf{file, l.authorities[serverCA], name, x509.ExtKeyUsageServerAuth, l.sans}
}

// writeToken keeps the token of an earlier start, unless another one is given.
func (l *layout) writeToken(token string) error {
	file := filepath.Join(l.server, "token")
	if token == "" {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		random := make([]byte, 16)
		rand.Read(random)
		token = hex.EncodeToString(random)
	}
	if !strings.HasPrefix(token, "K10") {
		hash := sha256.Sum256(l.authorities[serverCA].pem)
		token = fmt.Sprintf("K10%s::server:%s", hex.EncodeToString(hash[:]), token)
	}
	if err := writeAtomically(file, []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	link := filepath.Join(l.server, "node-token")
	if _, err := os.Lstat(link); err == nil {
		return nil
	}
	return os.Symlink(file, link)
}

// writeKubeconfigs: those of k3s' own parts name files and the API server's port, the admin's holds everything.
func (l *layout) writeKubeconfigs(o *standInOptions) error {
	byPath := func(name string) []byte {
		return fmt.Appendf(nil, kubeconfigFormat, "certificate-authority", l.file(serverCA+".crt"), "https://127.0.0.1:"+fmt.Sprint(o.apiPort()),
			"client-certificate", l.file(name+".crt"), "client-key", l.file(name+".key"))
	}
	for file, name := range map[string]string{"admin": "client-admin", "controller": "client-controller"} {
		if err := writeAtomically(filepath.Join(l.cred, file+".kubeconfig"), byPath(name), 0o600); err != nil {
			return err
		}
	}
	var data [3]string
	for i, name := range []string{serverCA + ".crt", "client-admin.crt", "client-admin.key"} {
		content, err := os.ReadFile(l.file(name))
		if err != nil {
			return err
		}
		data[i] = base64.StdEncoding.EncodeToString(content)
	}
	if err := os.MkdirAll(filepath.Dir(o.kubeconfig), 0o755); err != nil {
		return err
	}
	mode, err := o.mode()
	if err != nil {
		return err
	}
	content := fmt.Appendf(nil, kubeconfigFormat, "certificate-authority-data", data[0], "https://127.0.0.1:"+fmt.Sprint(o.port),
		"client-certificate-data", data[1], "client-key-data", data[2])
	if err := writeAtomically(o.kubeconfig, content, mode); err != nil {
		return err
	}
	return os.Chmod(o.kubeconfig, mode)
}

const kubeconfigFormat = `apiVersion: v1
kind: Config
clusters:
- cluster:
    %s: %s
    server: %s
  name: default
users:
- name: default
  user:
    %s: %s
    %s: %s
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
preferences: {}
`
