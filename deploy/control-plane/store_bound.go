package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

const (
	maxStoreFlag = "max-store-bytes"
	// An image from before the bound ignores a variable, and would not start with a flag that it does not know.
	maxStoreVariable = "PORTICO_MAX_STORE_BYTES"

	measureInterval = time.Second
	measureTimeout  = 5 * time.Second
	// How old a revision gets at least, and how long the room of what was deleted stays taken, while nothing may be added.
	// Each time only what is new since the last is looked at, so this costs little; less would end lists that a client
	// reads in parts.
	urgentCompactInterval = 30 * time.Second
)

// What is added is refused at the bound; changes of what is there only at a twentieth above it. Who may delete must be able
// to finish it: take a finalizer off, which is a change, and nobody can tell from a request whether it is one of those. A
// change takes room only until the next compaction, so that twentieth is hard to use up with changes alone.
const (
	changesPercent = 105
	// Room again only some way below, so that a store does not go back and forth at its bound.
	roomPercent = 95
)

// boundedStore is what a bound needs to know of a store, and to do to it.
type boundedStore interface {
	// size is what it has on the disk, but for what it would take again before it grows.
	size(context.Context) (int64, error)
	// trim lets go of what is on the disk twice.
	trim(context.Context)
	// compact lets go of what was deleted or replaced before it was called the last time.
	compact(ctx context.Context, urgent bool)
}

// storeBound is how large a store may grow before nothing is added any more. Beyond its volume, or what its pod may take of
// the node, SQLite would fail for ever or the pod be evicted, and nobody could even delete.
//
// It keeps a tenant from an accident, and is no wall against him: whoever may impersonate Kubernetes' own identities passes
// it, and finds the limits of his volume and his pod behind it.
type storeBound struct {
	most            int64
	store           boundedStore
	compactInterval time.Duration
	now             atomic.Pointer[fill]
	unknown         bool
}

// fill is how full a store is.
type fill struct {
	bytes int64
	// Nothing may be added.
	full bool
	// Nothing may be changed, either, but by those who finish deletions.
	exhausted bool
}

func addBoundFlag(f *pflag.FlagSet, o *storeOptions) {
	f.StringVar(&o.maxBytes, maxStoreFlag, os.Getenv(maxStoreVariable),
		"bytes that SQLite may grow to before requests that add to it are refused with 507; 0 or nothing: no bound [$"+maxStoreVariable+"]")
}

// bound is zero where there is none.
func (o *storeOptions) bound(e *endpoint) (int64, error) {
	if o.maxBytes == "" {
		return 0, nil
	}
	most, err := strconv.ParseInt(o.maxBytes, 10, 64)
	switch {
	case err != nil || most < 0:
		return 0, fmt.Errorf("--%s %q is not a number of bytes", maxStoreFlag, o.maxBytes)
	case most > 0 && e.kind != storeSQLite:
		return 0, errors.New("--" + maxStoreFlag + " is for SQLite only: what another database may grow to is for that database to say")
	}
	return most, nil
}

// newStoreBound measures once, so that the first request meets the bound.
func newStoreBound(ctx context.Context, most int64, compactInterval time.Duration, s boundedStore) *storeBound {
	b := &storeBound{most: most, store: s, compactInterval: compactInterval}
	b.now.Store(&fill{})
	b.measure(ctx)
	return b
}

// watch starts what runs until the context ends. Measuring does not wait for a compaction, which may take long.
func (b *storeBound) watch(ctx context.Context, wg *sync.WaitGroup) {
	every := func(do func()) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			tick := time.NewTicker(measureInterval)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					do()
				}
			}
		}()
	}
	last := time.Now()
	every(func() { b.measure(ctx) })
	every(func() {
		if urgent := b.fill().full; b.isDue(time.Since(last), urgent) {
			b.store.compact(ctx, urgent)
			last = time.Now()
		}
	})
}

func (b *storeBound) fill() fill { return *b.now.Load() }

func (b *storeBound) isDue(since time.Duration, urgent bool) bool {
	if urgent && (b.compactInterval <= 0 || b.compactInterval > urgentCompactInterval) {
		return since >= urgentCompactInterval
	}
	return b.compactInterval > 0 && since >= b.compactInterval
}

// measure keeps what it knew when the store does not answer: that it is busy says nothing of its size.
//
// Nothing is refused for what trim would give back: whoever was refused would find room a moment later, having done nothing.
func (b *storeBound) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	before := b.fill()
	bytes, err := b.store.size(ctx)
	if err == nil && before.then(bytes, b.most).isWorseThan(before) {
		b.store.trim(ctx)
		bytes, err = b.store.size(ctx)
	}
	if err != nil {
		if ctx.Err() == nil && !b.unknown {
			klog.Warningf("how large the store is cannot be read: %v", err)
		}
		b.unknown = true
		return
	}
	b.unknown = false
	after := before.then(bytes, b.most)
	b.now.Store(&after)
	switch {
	case after.full && !before.full:
		klog.Warningf("the store has %s of at most %s: what adds to it is refused until objects are deleted", inMiB(bytes), inMiB(b.most))
	case before.full && !after.full:
		klog.Warningf("the store has %s of at most %s: there is room again", inMiB(bytes), inMiB(b.most))
	}
}

func (f fill) then(bytes, most int64) fill {
	share := func(percent int64) int64 { return most/100*percent + most%100*percent/100 }
	return fill{
		bytes:     bytes,
		full:      bytes >= most || f.full && bytes >= share(roomPercent),
		exhausted: bytes >= share(changesPercent) || f.exhausted && bytes >= most,
	}
}

func (f fill) isWorseThan(before fill) bool {
	return f.full && !before.full || f.exhausted && !before.exhausted
}

func inMiB(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
