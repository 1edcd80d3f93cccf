package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/mysql"
	"github.com/k3s-io/kine/pkg/drivers/pgsql"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	"github.com/k3s-io/kine/pkg/tls"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	// What kine's own command line has as defaults. A Config left empty fails silently: watches that never deliver.
	emulatedEtcdVersion = "3.6.11"
	notifyInterval      = 5 * time.Second
	compactTimeout      = 5 * time.Second
	compactMinRetain    = 1000
	compactBatchSize    = 1000
	pollBatchSize       = 500
	// Percent of the interval, so that replicas that started together do not compact together.
	compactJitter = 10

	maxRequestBytes = 2 << 20
	stopTimeout     = 2 * time.Second

	// A database in a pod of its own often starts together with us.
	databaseWait     = 2 * time.Minute
	databaseMaxPause = 10 * time.Second
)

// store is what the API server keeps its objects in.
type store struct {
	// Flags of kube-apiserver that lead there.
	flags map[string]string
	// More than one replica may use it, so controllers must elect a leader.
	shared bool
	// Nil where nothing bounds it.
	bound *storeBound
	close func()
}

// openStore makes its files in the folder db and its socket at the given path.
func openStore(ctx context.Context, o *storeOptions, e *endpoint, db, socket string) (*store, error) {
	most, err := o.bound(e)
	if err != nil {
		return nil, err
	}
	if e.kind == storeEtcd {
		return etcdStore(o, e), nil
	}
	k, err := openKine(ctx, o, e, db, socket, most)
	if err != nil {
		return nil, err
	}
	flags := map[string]string{"etcd-servers": "unix://" + socket}
	return &store{flags: flags, shared: e.shared(), bound: k.bound, close: k.close}, nil
}

// etcdStore: the API server speaks to etcd itself, and compacts it.
func etcdStore(o *storeOptions, e *endpoint) *store {
	flags := map[string]string{"etcd-servers": strings.Join(e.servers, ",")}
	for flag, file := range map[string]string{"etcd-cafile": o.caFile, "etcd-certfile": o.certFile, "etcd-keyfile": o.keyFile} {
		if file != "" {
			flags[flag] = file
		}
	}
	return &store{flags: flags, shared: true, close: func() {}}
}

// kine speaks the etcd protocol on a unix socket. Its drivers are used directly instead of its endpoint package, which
// would link those of more databases.
type kine struct {
	grpc   *grpc.Server
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// Bytes; zero for no bound.
	most  int64
	bound *storeBound
}

func openKine(ctx context.Context, o *storeOptions, e *endpoint, db, socket string, most int64) (*kine, error) {
	k := &kine{most: most}
	backend, err := k.openBackend(ctx, o, e, db)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, e.secrets.error(err)
	}
	listener, err := listenPrivately(socket)
	if err != nil {
		k.cancel()
		return nil, err
	}
	k.grpc = grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
	)
	server.New(backend, "unix", notifyInterval, emulatedEtcdVersion).Register(k.grpc)
	k.wg.Add(1)
	go func() {
		defer k.wg.Done()
		if err := k.grpc.Serve(listener); err != nil {
			logrus.Errorf("database server ended: %v", err)
		}
	}()
	return k, nil
}

// openBackend tries for a while when the database is another process, which may start later than this one.
func (k *kine) openBackend(ctx context.Context, o *storeOptions, e *endpoint, db string) (server.Backend, error) {
	open, config := sqlite.New, kineConfig(o, e)
	switch e.kind {
	case storeMySQL:
		open = mysql.New
	case storePostgres:
		open = pgsql.New
	default:
		if err := os.MkdirAll(db, 0o700); err != nil {
			return nil, err
		}
		file := filepath.Join(db, "state.db")
		config.DataSourceName = file + "?" + sqlite.DefaultParams
		if k.most > 0 {
			return k.openBounded(ctx, config, file)
		}
	}
	patience, cancel := context.WithTimeout(ctx, databaseWait)
	defer cancel()
	for pause := time.Second; ; pause = min(2*pause, databaseMaxPause) {
		backend, err := k.tryOpen(patience, open, config)
		if err == nil || !e.shared() {
			return backend, err
		}
		select {
		case <-patience.Done():
			return nil, fmt.Errorf("gave up after %s: %w", databaseWait, err)
		case <-time.After(pause):
			logrus.Warnf("the database is not ready, trying again: %v", err)
		}
	}
}

func (k *kine) openBounded(ctx context.Context, config drivers.Config, file string) (server.Backend, error) {
	interval := config.CompactInterval
	var bounded *sqliteStore
	open := func(ctx context.Context, wg *sync.WaitGroup, config *drivers.Config) (bool, server.Backend, error) {
		var err error
		bounded, err = openSQLite(ctx, wg, config, file)
		return false, bounded, err
	}
	if _, err := k.tryOpen(ctx, open, config); err != nil {
		return nil, err
	}
	var err error
	if bounded.seen, err = bounded.CurrentRevision(ctx); err != nil {
		k.cancel()
		return nil, err
	}
	bounded.trim(ctx)
	k.bound = newStoreBound(ctx, k.most, interval, bounded)
	life, cancel := context.WithCancel(context.Background())
	ended := k.cancel
	k.cancel = func() { cancel(); ended() }
	k.bound.watch(life, &k.wg)
	return bounded, nil
}

// tryOpen: the context ends the wait for the database, but not the database: the API server writes until its own end.
func (k *kine) tryOpen(ctx context.Context, open drivers.Constructor, config drivers.Config) (server.Backend, error) {
	life, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	_, backend, err := open(life, &k.wg, &config)
	if err == nil {
		err = backend.Start(life)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	k.cancel = cancel
	return backend, nil
}

func kineConfig(o *storeOptions, e *endpoint) drivers.Config {
	config := drivers.Config{
		DataSourceName:   e.dsn,
		BackendTLSConfig: tls.Config{CAFile: o.caFile, CertFile: o.certFile, KeyFile: o.keyFile},
		CompactInterval:  o.compactInterval,
		CompactTimeout:   compactTimeout,
		CompactMinRetain: compactMinRetain,
		CompactBatchSize: compactBatchSize,
		PollInterval:     o.datastorePollPeriod,
		PollBatchSize:    pollBatchSize,
	}
	if e.shared() {
		config.CompactIntervalJitter = compactJitter
	}
	return config
}

// listenPrivately replaces the socket of an earlier life. No other user may connect: there is no authentication behind it.
func listenPrivately(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	return listener, nil
}

// close ends the connections, then lets SQLite write its log back.
func (k *kine) close() {
	timer := time.AfterFunc(stopTimeout, k.grpc.Stop)
	k.grpc.GracefulStop()
	timer.Stop()
	k.cancel()
	k.wg.Wait()
}
