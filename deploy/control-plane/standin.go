package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/component-base/version"
)

const standInLiveness = 2 * time.Minute

// standInMain is `k3s ...`: a stand-in for tests where k3s' image cannot be had. It takes k3s' flags, writes k3s' files and
// serves k3s' ports, so that what runs against it runs against k3s; it has no code of k3s.
func standInMain(args []string) int {
	fail := func(err error) int {
		fmt.Fprintf(os.Stderr, "k3s (stand-in): %v\n", err)
		return 2
	}
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "--version", "-v":
		fmt.Println(standInVersion())
		return 0
	case "", "--help", "-h", "help":
		fmt.Println(standInHelp())
		return 0
	case "server":
	default:
		return fail(fmt.Errorf("%q is not here: %s, it has only server", command, standInName))
	}
	o, err := parseStandIn(args[1:])
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		return fail(err)
	}
	return untilSignal("k3s (stand-in)", func(ctx context.Context) error { return runStandIn(ctx, o) })
}

const standInName = "this is Portico's k3s stand-in for tests, not k3s"

func standInVersion() string {
	return fmt.Sprintf("k3s: %s\nKubernetes %s, kine %s", standInName, version.Get().GitVersion, moduleVersion("github.com/k3s-io/kine"))
}

func standInHelp() string {
	return standInVersion() + `

k3s server FLAGS takes the flags of k3s below and no others, writes the same files with the same names and subjects, and
serves the same ports: everything at --https-listen-port, the API server alone at the next port of 127.0.0.1.

It is no node, has no scheduler, no network and no add-ons. Authorities (tls/server-ca, client-ca, request-header-ca) and
tls/service.key that exist are used and never written; other certificates are renewed at a start within 90 days of their end.
With --datastore-endpoint these files must exist, the same for each replica: k3s would pass them through the database, the
stand-in does not. For a single replica that keeps its folder, ` + standInSingle + `=1 allows to make them.
`
}

func runStandIn(ctx context.Context, o *standInOptions) error {
	endpoint, err := parseEndpoint(o.store.endpoint)
	if err != nil {
		return err
	}
	if err := redirectLog(o); err != nil {
		return err
	}
	if err := setUpLogging(o.verbosity, endpoint.secrets); err != nil {
		return err
	}
	for _, warning := range o.warnings() {
		fmt.Fprintln(os.Stderr, "k3s (stand-in): "+warning)
	}
	// Whoever asks for the version should see what it is, and find what it looks for in k3s'.
	if own := version.Get().GitVersion; !strings.Contains(own, "+") {
		if err := version.SetDynamicVersion(own + "+k3s-stand-in"); err != nil {
			return err
		}
	}
	l, err := makeLayout(o, endpoint.shared(), time.Now())
	if err != nil {
		return err
	}
	if o.clusterReset {
		if err := l.member().reset(); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "k3s (stand-in): the etcd has been reset, start without --cluster-reset now")
		return nil
	}
	front, err := newSupervisor(l, time.Now(), o.verbosity > 0)
	if err != nil {
		return err
	}
	if err := front.listen(o.bindAddress, o.port); err != nil {
		return err
	}
	defer front.close()
	context.AfterFunc(ctx, front.drain)
	s, err := standInStore(ctx, o, l, endpoint)
	if err != nil {
		return fmt.Errorf("datastore: %w", err)
	}
	// Closed after the API server has ended, which writes until then.
	defer s.close()
	args, err := standInArguments(o, l, s)
	if err != nil {
		return err
	}
	return serve(ctx, &plane{
		arguments:  *args,
		publicPort: o.port,
		made:       front.api.Store,
		probe: &prober{
			port: o.apiPort(), caFile: l.file(serverCA + ".crt"), serverName: "127.0.0.1", patience: standInLiveness,
			certFile: l.file("client-admin.crt"), keyFile: l.file("client-admin.key"),
		},
	})
}

func standInStore(ctx context.Context, o *standInOptions, l *layout, e *endpoint) (*store, error) {
	run, err := makeRunFolder(l.server)
	if err != nil {
		return nil, err
	}
	if !o.clusterInit {
		return openStore(ctx, &o.store, e, l.db(), filepath.Join(run, "kine.sock"))
	}
	if err := os.MkdirAll(l.db(), 0o700); err != nil {
		return nil, err
	}
	if err := l.member().claim(); err != nil {
		return nil, err
	}
	return embeddedEtcd(ctx, l.member().dir(), run, o.verbosity)
}

// redirectLog: loggers were given the descriptor of standard error, so the descriptor itself is replaced.
func redirectLog(o *standInOptions) error {
	if o.logFile == "" || o.alsoStderr {
		return nil
	}
	file, err := os.OpenFile(o.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	defer file.Close()
	return syscall.Dup3(int(file.Fd()), int(os.Stderr.Fd()), 0)
}
