package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const etcdWait = time.Minute

// embeddedEtcd is one member that nobody joins, so it listens on sockets only.
func embeddedEtcd(ctx context.Context, dir, sockets string, verbosity int) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	client, peer := filepath.Join(sockets, "etcd.sock"), filepath.Join(sockets, "etcd-peer.sock")
	c := embed.NewConfig()
	c.Dir = dir
	c.LogLevel = "error"
	if verbosity > 0 {
		c.LogLevel = "info"
	}
	c.ListenClientUrls, c.AdvertiseClientUrls = socketURL(client), socketURL(client)
	c.ListenPeerUrls, c.AdvertisePeerUrls = socketURL(peer), socketURL(peer)
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.EnableGRPCGateway = false
	member, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-member.Server.ReadyNotify():
		return &store{flags: map[string]string{"etcd-servers": "unix://" + client}, close: member.Close}, nil
	case err = <-member.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(etcdWait):
		err = errors.New("not ready after " + etcdWait.String())
	}
	member.Close()
	return nil, fmt.Errorf("etcd: %w", err)
}

func socketURL(path string) []url.URL { return []url.URL{{Scheme: "unix", Path: path}} }
