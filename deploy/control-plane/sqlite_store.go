package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/generic"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	"k8s.io/klog/v2"
)

// At least kine's smallest. What is compacted at once must be done within its timeout, or it is undone and tried again for
// ever, and a bounded store is full of large objects when it matters.
const sqliteCompactBatch = 100

// sqliteStore is a SQLite database that we compact.
//
// kine would do it each few minutes and never touch the last thousand revisions: of a tenant who has deleted five hundred
// large objects it would give the room back hours later. Once is one told to do it, kine does it then and not by itself.
type sqliteStore struct {
	server.Backend
	dialect *generic.Generic
	// The write-ahead log.
	wal string
	// Only the one who compacts uses it: the newest revision when he did it last.
	seen int64
}

// openSQLite opens what is compacted by nobody but its compact.
func openSQLite(ctx context.Context, wg *sync.WaitGroup, config *drivers.Config, file string) (*sqliteStore, error) {
	config.CompactInterval, config.CompactMinRetain, config.CompactBatchSize = 0, 0, sqliteCompactBatch
	backend, dialect, err := sqlite.NewVariant(ctx, wg, "sqlite3", config)
	if err != nil {
		return nil, err
	}
	return &sqliteStore{Backend: backend, dialect: dialect, wal: file + "-wal"}, nil
}

// Compact does nothing when the API server asks for it, as is kine's way when it compacts by itself.
func (s *sqliteStore) Compact(ctx context.Context, _ int64) (int64, error) {
	return s.CurrentRevision(ctx)
}

// size leaves out free pages: the file never shrinks, but is filled again before it grows. The log is on the disk beside
// it; most of its pages are counted already, which is a few MiB too many until it is trimmed.
func (s *sqliteStore) size(ctx context.Context) (int64, error) {
	pages, err := s.DbSize(ctx)
	if err != nil {
		return 0, err
	}
	log, err := os.Stat(s.wal)
	if errors.Is(err, fs.ErrNotExist) {
		return pages, nil
	}
	if err != nil {
		return 0, err
	}
	return pages + log.Size(), nil
}

// compact goes to the newest revision of the last time: whoever reads in parts, or watches, has that long for it, as with an
// etcd.
func (s *sqliteStore) compact(ctx context.Context, urgent bool) {
	current, err := s.CurrentRevision(ctx)
	if err != nil {
		klog.Warningf("the store is not compacted: %v", err)
		return
	}
	target := s.seen
	s.seen = current
	if target > 0 {
		if _, err := s.Backend.Compact(ctx, target); err != nil && !errors.Is(err, server.ErrCompacted) {
			klog.Warningf("the store is not compacted: %v", err)
		}
	}
	if urgent {
		s.trim(ctx)
	}
}

// trim truncates the log: otherwise it keeps the size it once had, and after kine's VACUUM at a start that is the database's.
// Not while others read: then the next time.
func (s *sqliteStore) trim(ctx context.Context) {
	if _, err := s.dialect.DB.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		klog.V(2).Infof("the write-ahead log stays as large as it is: %v", err)
	}
}
