package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const etcdWait = time.Minute

// etcdMember is the one member of an etcd that has no others. Like that of k3s it belongs to an address, though it could do
// without: who runs k3s has to reset the member when its pod gets another address, and forgets it less when this refuses, too.
type etcdMember struct {
	db, address string
}

func (m *etcdMember) dir() string         { return filepath.Join(m.db, "etcd") }
func (m *etcdMember) addressFile() string { return filepath.Join(m.db, "etcd.address") }
func (m *etcdMember) flagFile() string    { return filepath.Join(m.db, "reset-flag") }

// reset takes the present address. The flag is k3s' guard against doing it at each start.
func (m *etcdMember) reset() error {
	if _, err := os.Stat(filepath.Join(m.dir(), "member")); err != nil {
		return fmt.Errorf("--cluster-reset: no etcd to reset: %w", err)
	}
	if _, err := os.Stat(m.flagFile()); err == nil {
		return fmt.Errorf("--cluster-reset was done before; start without it, or remove %s to do it again", m.flagFile())
	}
	return errors.Join(writeAtomically(m.flagFile(), nil, 0o600), writeAtomically(m.addressFile(), []byte(m.address), 0o600))
}

func (m *etcdMember) claim() error {
	known, err := os.ReadFile(m.addressFile())
	switch {
	case err == nil && string(known) != m.address:
		return fmt.Errorf("the member of %s has the address %s, not %s: start once with --cluster-reset, as k3s needs it", m.dir(), known, m.address)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.Remove(m.flagFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeAtomically(m.addressFile(), []byte(m.address), 0o600)
}

// embeddedEtcd is one member that nobody joins, so it listens on one socket only.
func embeddedEtcd(ctx context.Context, dir, sockets string, verbosity int) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	client := filepath.Join(sockets, "etcd.sock")
	c := embed.NewConfig()
	c.Dir = dir
	c.LogLevel = "error"
	if verbosity > 0 {
		c.LogLevel = "info"
	}
	c.ListenClientUrls, c.AdvertiseClientUrls = socketURL(client), socketURL(client)
	// A member has to have a name for others, even if it does not listen to any.
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, socketURL("nobody")
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
