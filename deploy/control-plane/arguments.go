package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/klog/v2"
)

var pkiFiles = []string{
	"server-ca.crt", "apiserver.crt", "apiserver.key", "client-ca.crt", "client-ca.key",
	"front-proxy-ca.crt", "sa.key", "sa.pub", "kcm.crt", "kcm.key",
}

// The certificate that the aggregator shows to extension API servers, of the same CA as Portico's gateway. Its common name is
// read from it. A Secret that an earlier Portico made has none.
const (
	aggregatorCert = "aggregator.crt"
	aggregatorKey  = "aggregator.key"
)

// A virtual cluster has no nodes of its own, and its volumes are bound on the host: these would fight the syncer.
var disabledControllers = []string{
	"node-ipam-controller", "node-lifecycle-controller", "ttl-controller", "cloud-node-lifecycle-controller",
	"persistentvolume-binder-controller", "persistentvolume-attach-detach-controller", "persistentvolume-expander-controller",
	"taint-eviction-controller", "device-taint-eviction-controller",
}

// Probes carry no credentials, so exactly these paths are open without, and no others.
const authenticationConfig = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
    - path: /livez
    - path: /readyz
    - path: /healthz
`

// runtimeFiles are made anew at each start, in the data folder: the root of the container is read-only.
type runtimeFiles struct {
	socket         string
	authentication string
	kubeconfig     string
	// A name the serving certificate is valid for.
	serverName string
}

type arguments struct {
	apiServer         []string
	controllerManager []string
}

func checkPKI(dir string) error {
	if missing := missingFiles(dir, pkiFiles); len(missing) > 0 {
		return fmt.Errorf("missing in %s: %s", dir, strings.Join(missing, ", "))
	}
	return nil
}

func writeRuntimeFiles(o *options) (*runtimeFiles, error) {
	dir, err := makeRunFolder(o.dataDir)
	if err != nil {
		return nil, err
	}
	f := &runtimeFiles{
		socket:         filepath.Join(dir, "kine.sock"),
		authentication: filepath.Join(dir, "authentication.yaml"),
		kubeconfig:     filepath.Join(dir, "controller-manager.kubeconfig"),
	}
	if f.serverName, err = servingName(filepath.Join(o.pkiDir, "apiserver.crt")); err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.authentication, []byte(authenticationConfig), 0o600); err != nil {
		return nil, err
	}
	pkiDir, err := filepath.Abs(o.pkiDir)
	if err != nil {
		return nil, err
	}
	// Files, not their content: client-go reads them again when they are renewed.
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://127.0.0.1:%d", tls-server-name: %q, certificate-authority: %q}}]
users: [{name: local, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: local, context: {cluster: local, user: local}}]
current-context: local
`, o.securePort, f.serverName, filepath.Join(pkiDir, "server-ca.crt"), filepath.Join(pkiDir, "kcm.crt"), filepath.Join(pkiDir, "kcm.key"))
	return f, os.WriteFile(f.kubeconfig, []byte(kubeconfig), 0o600)
}

func missingFiles(dir string, names []string) []string {
	var missing []string
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// servingName: the certificate need not name the loopback address.
func servingName(path string) (string, error) {
	cert, err := readCertificate(path)
	if err != nil {
		return "", err
	}
	for _, name := range cert.DNSNames {
		if !strings.HasPrefix(name, "*") {
			return name, nil
		}
	}
	if len(cert.IPAddresses) > 0 {
		return cert.IPAddresses[0].String(), nil
	}
	return "", fmt.Errorf("%s: no subject alternative name", path)
}

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs[0], nil
}

func makeArguments(o *options, files *runtimeFiles, s *store) (*arguments, error) {
	server, err := serverFlags(o, files)
	if err != nil {
		return nil, err
	}
	controller := controllerFlags(o, files, s.shared)
	logging := loggingFlags(o.verbosity)
	var result arguments
	var err2 error
	result.apiServer, err = flagList(o.apiServerArgs, server, s.flags, logging)
	result.controllerManager, err2 = flagList(o.controllerArgs, controller, logging)
	return &result, errors.Join(err, err2)
}

func loggingFlags(verbosity int) map[string]string {
	if verbosity > 0 {
		return map[string]string{"v": strconv.Itoa(verbosity)}
	}
	return map[string]string{"logging-format": quietFormat}
}

func serverFlags(o *options, files *runtimeFiles) (map[string]string, error) {
	pki := func(name string) string { return filepath.Join(o.pkiDir, name) }
	server := map[string]string{
		"etcd-prefix":                        o.store.etcdPrefix,
		"secure-port":                        strconv.Itoa(o.securePort),
		"tls-cert-file":                      pki("apiserver.crt"),
		"tls-private-key-file":               pki("apiserver.key"),
		"client-ca-file":                     pki("client-ca.crt"),
		"authentication-config":              files.authentication,
		"authorization-mode":                 "Node,RBAC",
		"enable-admission-plugins":           "NodeRestriction",
		"allow-privileged":                   "true",
		"service-cluster-ip-range":           o.serviceCIDR,
		"service-account-issuer":             "https://kubernetes.default.svc." + o.clusterDomain,
		"service-account-key-file":           pki("sa.pub"),
		"service-account-signing-key-file":   pki("sa.key"),
		"requestheader-client-ca-file":       pki("front-proxy-ca.crt"),
		"requestheader-allowed-names":        strings.Join(o.frontProxyNames, ","),
		"requestheader-username-headers":     "X-Remote-User",
		"requestheader-uid-headers":          "X-Remote-Uid",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		// The endpoints of the Service kubernetes are Portico's gateway, which the API server does not know.
		"endpoint-reconciler-type": "none",
		// Without it watches are not ended, and the end of the process takes the whole request timeout of a minute.
		"shutdown-watch-termination-grace-period": "5s",
	}
	if err := addAggregator(server, o); err != nil {
		return nil, err
	}
	if o.advertiseAddress != "" {
		if net.ParseIP(o.advertiseAddress) == nil {
			return nil, fmt.Errorf("--advertise-address %q is not an IP address", o.advertiseAddress)
		}
		server["advertise-address"] = o.advertiseAddress
	}
	return server, nil
}

// addAggregator lets extension API servers believe whom the aggregator speaks for: they accept its X-Remote headers by the CA
// and the names that this API server publishes in kube-system/extension-apiserver-authentication, which are those that it
// accepts itself. So the name must be among the allowed ones, and whoever has this key could be anybody at this one API
// server, which is the only one that has it. It is not the gateway's name: what the gateway shows here, no extension server
// ever sees, and either can be told from the other, taken away or renewed alone.
//
// Extension servers are dialed at their ClusterIP (without --enable-aggregator-routing), as on most clusters. It is that of the
// host's Service, so the host's kube-proxy and NetworkPolicies decide what is reached, and addresses that do not cross
// to the host (loopback, link-local) are not dialed from this pod either.
func addAggregator(server map[string]string, o *options) error {
	missing := missingFiles(o.pkiDir, []string{aggregatorCert, aggregatorKey})
	switch len(missing) {
	case 2:
		klog.Warningf("there is no %s in %s: extension API servers will take every request of this one for anonymous", aggregatorCert, o.pkiDir)
		return nil
	case 1:
		return fmt.Errorf("missing in %s: %s", o.pkiDir, missing[0])
	}
	certFile := filepath.Join(o.pkiDir, aggregatorCert)
	cert, err := readCertificate(certFile)
	if err != nil {
		return err
	}
	if cert.Subject.CommonName == "" {
		return fmt.Errorf("%s: no common name, by which extension API servers know it", certFile)
	}
	server["proxy-client-cert-file"] = certFile
	server["proxy-client-key-file"] = filepath.Join(o.pkiDir, aggregatorKey)
	server["requestheader-allowed-names"] = strings.Join(append(slices.Clone(o.frontProxyNames), cert.Subject.CommonName), ",")
	return nil
}

func controllerFlags(o *options, files *runtimeFiles, shared bool) map[string]string {
	pki := func(name string) string { return filepath.Join(o.pkiDir, name) }
	return map[string]string{
		"kubeconfig":                       files.kubeconfig,
		"secure-port":                      "0",
		"leader-elect":                     strconv.FormatBool(o.leaderElect.decide(shared)),
		"controllers":                      "*,-" + strings.Join(disabledControllers, ",-"),
		"use-service-account-credentials":  "true",
		"root-ca-file":                     pki("server-ca.crt"),
		"service-account-private-key-file": pki("sa.key"),
		"cluster-signing-cert-file":        pki("client-ca.crt"),
		"cluster-signing-key-file":         pki("client-ca.key"),
		"allocate-node-cidrs":              "false",
	}
}

// flagList lets an override replace our value: giving a list flag twice would add to it.
func flagList(overrides []string, ours ...map[string]string) ([]string, error) {
	values := map[string][]string{}
	for _, m := range ours {
		for k, v := range m {
			values[k] = []string{v}
		}
	}
	replaced := map[string]bool{}
	for _, arg := range overrides {
		k, v, ok := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%q is not NAME=VALUE", arg)
		}
		if !replaced[k] {
			values[k], replaced[k] = nil, true
		}
		values[k] = append(values[k], v)
	}
	var list []string
	for k, vs := range values {
		for _, v := range vs {
			list = append(list, "--"+k+"="+v)
		}
	}
	return list, nil
}
