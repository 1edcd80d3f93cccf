package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
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

	maxRequestBytes = 2 << 20
	stopTimeout     = 2 * time.Second
)

// datastore speaks the etcd protocol on a unix socket. It uses kine's SQLite driver directly instead of kine's
// endpoint package, which would link the drivers of every other database.
type datastore struct {
	grpc   *grpc.Server
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func openDatastore(o *options, socket string) (*datastore, error) {
	dir := filepath.Join(o.dataDir, "db")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &datastore{cancel: cancel}
	_, backend, err := sqlite.New(ctx, &d.wg, &drivers.Config{
		Scheme:           "sqlite",
		DataSourceName:   filepath.Join(dir, "state.db") + "?" + sqlite.DefaultParams,
		CompactInterval:  o.compactInterval,
		CompactTimeout:   compactTimeout,
		CompactMinRetain: compactMinRetain,
		CompactBatchSize: compactBatchSize,
		PollInterval:     o.datastorePollPeriod,
		PollBatchSize:    pollBatchSize,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	if err := backend.Start(ctx); err != nil {
		cancel()
		return nil, err
	}
	listener, err := listenPrivately(socket)
	if err != nil {
		cancel()
		return nil, err
	}
	d.grpc = grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
	)
	server.New(backend, "unix", notifyInterval, emulatedEtcdVersion).Register(d.grpc)
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		if err := d.grpc.Serve(listener); err != nil {
			logrus.Errorf("database server ended: %v", err)
		}
	}()
	return d, nil
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
func (d *datastore) close() {
	timer := time.AfterFunc(stopTimeout, d.grpc.Stop)
	d.grpc.GracefulStop()
	timer.Stop()
	d.cancel()
	d.wg.Wait()
}
