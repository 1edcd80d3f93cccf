package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// scripted is a store of the size that it is told.
type scripted struct {
	bytes int64
	// On the disk twice: part of bytes.
	twice int64
	err   error
}

func (s *scripted) size(context.Context) (int64, error) { return s.bytes, s.err }
func (s *scripted) compact(context.Context, bool)       {}
func (s *scripted) trim(context.Context)                { s.bytes, s.twice = s.bytes-s.twice, 0 }

// boundAt is a bound of 1000 bytes on a store that has these.
func boundAt(t *testing.T, bytes int64) (*storeBound, *scripted) {
	t.Helper()
	s := &scripted{bytes: bytes}
	return newStoreBound(t.Context(), 1000, time.Minute, s), s
}

// ask is answered with 200 by what is behind the bound.
func ask(b *storeBound, caller, method, target, contentType string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("Content-Type", contentType)
	factory := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	info, err := factory.NewRequestInfo(r)
	if err != nil {
		panic(err)
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: caller})
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	w := httptest.NewRecorder()
	b.wrap(next, legacyscheme.Codecs).ServeHTTP(w, r.WithContext(ctx))
	return w
}

// What passes while there is room (999 of 1000 bytes), at the bound, and beyond the room that is kept for changes.
func TestWhatPassesAtWhichFill(t *testing.T) {
	const (
		tenant     = "admin"
		controller = controllerPrefix + "namespace-controller"
		json       = "application/json"
		merge      = "application/merge-patch+json"
		apply      = "application/apply-patch+yaml"
		pod        = "/api/v1/namespaces/a/pods/p"
		lease      = "/apis/coordination.k8s.io/v1/namespaces/a/leases"
	)
	for _, c := range []struct {
		caller, method, path, contentType string
		passes                            string
	}{
		{tenant, "GET", "/api/v1/pods", json, "yyy"},
		{tenant, "GET", "/api/v1/pods?watch=true", json, "yyy"},
		{tenant, "DELETE", pod, json, "yyy"},
		{tenant, "DELETE", "/api/v1/namespaces/a/configmaps", json, "yyy"},
		{tenant, "DELETE", "/api/v1/namespaces/a", json, "yyy"},
		{tenant, "POST", "/api/v1/namespaces/a/configmaps", json, "ynn"},
		{tenant, "POST", "/apis/example.com/v1/namespaces/a/widgets", json, "ynn"},
		{tenant, "POST", "/api/v1/namespaces/a/configmaps?dryRun=All", json, "yyy"},
		{tenant, "PUT", "/api/v1/namespaces/a/configmaps/c", json, "yyn"},
		{tenant, "PATCH", "/api/v1/namespaces/a/configmaps/c", merge, "yyn"},
		{tenant, "PATCH", "/api/v1/namespaces/a/configmaps/c?dryRun=All", merge, "yyy"},
		{tenant, "PATCH", "/api/v1/namespaces/a/configmaps/c", apply, "ynn"},
		{tenant, "PATCH", pod + "/status", apply, "yyn"},
		{tenant, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json, "yyy"},
		{tenant, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", json, "yyy"},
		{tenant, "POST", "/api/v1/namespaces/a/serviceaccounts/s/token", json, "yyy"},
		{tenant, "POST", pod + "/eviction", json, "yyy"},
		{tenant, "POST", pod + "/binding", json, "yyy"},
		{tenant, "POST", "/api/v1/namespaces/a/bindings", json, "yyy"},
		{tenant, "POST", pod + "/exec", json, "yyy"},
		{tenant, "PUT", "/api/v1/namespaces/a/services/s/proxy/upload", json, "yyy"},
		{tenant, "PUT", lease + "/l", json, "yyy"},
		{tenant, "POST", lease, json, "yyn"},
		{tenant, "PUT", "/api/v1/namespaces/a/finalize", json, "yyn"},
		{tenant, "POST", "/api/v1/namespaces/a/events", json, "ynn"},
		{tenant, "POST", "/version", json, "yyy"},
		{controller, "PUT", "/api/v1/namespaces/a/finalize", json, "yyy"},
		{controller, "PATCH", pod, merge, "yyy"},
		{controller, "POST", "/api/v1/namespaces/a/pods", json, "ynn"},
		{controller, "PATCH", "/apis/events.k8s.io/v1/namespaces/a/events/e", merge, "ynn"},
		{"system:serviceaccount:default:mine", "PATCH", pod, merge, "yyn"},
		{"system:portico", "POST", "/api/v1/nodes", json, "yyy"},
		{"system:portico", "PATCH", pod + "/status", merge, "yyy"},
		{"system:portico", "POST", "/api/v1/namespaces/a/events", json, "ynn"},
		{"system:apiserver", "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", json, "yyy"},
		{"system:apiserver", "POST", lease, json, "yyy"},
	} {
		var passes strings.Builder
		for _, bytes := range []int64{999, 1000, 1050} {
			b, _ := boundAt(t, bytes)
			switch got := ask(b, c.caller, c.method, c.path, c.contentType).Code; got {
			case http.StatusOK:
				passes.WriteByte('y')
			case http.StatusInsufficientStorage:
				passes.WriteByte('n')
			default:
				t.Errorf("%s %s: %d", c.method, c.path, got)
			}
		}
		if passes.String() != c.passes {
			t.Errorf("%s: %s %s (%s) passes %s, not %s", c.caller, c.method, c.path, c.contentType, passes.String(), c.passes)
		}
	}
}

func TestTheAnswerSaysWhatToDo(t *testing.T) {
	b, _ := boundAt(t, 1000)
	b.most = 4 << 30
	b.now.Store(&fill{bytes: 5 << 30, full: true})
	w := ask(b, "admin", "POST", "/apis/apps/v1/namespaces/a/deployments", "application/json")
	var status metav1.Status
	if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if status.Kind != "Status" || status.Code != 507 || status.Reason != insufficientStorage || status.Details.Kind != "deployments" {
		t.Errorf("%+v", status)
	}
	for _, part := range []string{"5120.0 MiB of at most 4096.0 MiB", "delete objects", "more storage"} {
		if !strings.Contains(status.Message, part) {
			t.Errorf("no %q in %q", part, status.Message)
		}
	}
	if w.Header().Get("Retry-After") != "" {
		t.Error("clients would come again")
	}
}

func TestHowFullItIsCanBeRead(t *testing.T) {
	b, _ := boundAt(t, 1000)
	w := ask(b, "system:portico", "GET", storePath, "")
	if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `{"bound":1000,"bytes":1000,"full":true}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(b, "system:portico", "POST", storePath, ""); w.Code != http.StatusMethodNotAllowed {
		t.Error(w.Code)
	}
}

func TestThereIsRoomAgainOnlySomeWayBelow(t *testing.T) {
	b, s := boundAt(t, 0)
	for _, step := range []struct {
		bytes           int64
		full, exhausted bool
	}{
		{999, false, false}, {1000, true, false}, {999, true, false}, {1049, true, false}, {1050, true, true},
		{1001, true, true}, {999, true, false}, {950, true, false}, {949, false, false}, {999, false, false},
	} {
		s.bytes = step.bytes
		b.measure(t.Context())
		if got := b.fill(); got != (fill{step.bytes, step.full, step.exhausted}) {
			t.Errorf("at %d: %+v", step.bytes, got)
		}
	}
}

// Refused at 60 MiB of which 5 were a log, a tenant found room again after seventeen seconds in which nothing was deleted.
func TestNothingIsRefusedForWhatIsOnTheDiskTwice(t *testing.T) {
	b, s := boundAt(t, 0)
	for _, step := range []struct {
		bytes, twice, is int64
		full, exhausted  bool
	}{
		{1020, 80, 940, false, false}, {999, 80, 999, false, false}, {1080, 80, 1000, true, false},
		// While it is full, as well.
		{1060, 50, 1010, true, false}, {1040, 50, 1040, true, false}, {1100, 50, 1050, true, true},
	} {
		s.bytes, s.twice = step.bytes, step.twice
		b.measure(t.Context())
		if got := b.fill(); got != (fill{step.is, step.full, step.exhausted}) {
			t.Errorf("at %d with %d twice: %+v", step.bytes, step.twice, got)
		}
	}
}

func TestAStoreThatDoesNotAnswerIsAsFullAsBefore(t *testing.T) {
	b, s := boundAt(t, 1000)
	s.bytes, s.err = 0, errors.New("busy")
	b.measure(t.Context())
	if !b.fill().full {
		t.Error("no longer full")
	}
}

func TestAFullStoreIsCompactedMoreOften(t *testing.T) {
	for _, c := range []struct {
		interval, since time.Duration
		urgent, due     bool
	}{
		{5 * time.Minute, 31 * time.Second, false, false},
		{5 * time.Minute, 31 * time.Second, true, true},
		{5 * time.Minute, 5 * time.Minute, false, true},
		{10 * time.Second, 11 * time.Second, true, true},
		{0, time.Hour, false, false},
		{0, 31 * time.Second, true, true},
	} {
		b := &storeBound{compactInterval: c.interval}
		if b.isDue(c.since, c.urgent) != c.due {
			t.Errorf("%+v", c)
		}
	}
}

func TestTheFlagOfTheBound(t *testing.T) {
	sqlite, database := &endpoint{kind: storeSQLite}, &endpoint{kind: storePostgres}
	for _, c := range []struct {
		text  string
		e     *endpoint
		most  int64
		fails string
	}{
		{"", sqlite, 0, ""}, {"0", sqlite, 0, ""}, {"1000", sqlite, 1000, ""}, {"1Gi", sqlite, 0, "number of bytes"},
		{"-1", sqlite, 0, "number of bytes"}, {"0", database, 0, ""}, {"1000", database, 0, "SQLite only"},
	} {
		most, err := (&storeOptions{maxBytes: c.text}).bound(c.e)
		if most != c.most || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%q: %d, %v", c.text, most, err)
		}
	}
	t.Setenv(maxStoreVariable, "2000")
	if o, err := parse([]string{"--pki-dir=/pki"}); err != nil || o.store.maxBytes != "2000" {
		t.Errorf("%+v, %v", o, err)
	}
}

func openBoundedStore(t *testing.T, dir string) *store {
	t.Helper()
	options := &storeOptions{maxBytes: "8000000", datastorePollPeriod: time.Second, compactInterval: time.Hour}
	s, err := openStore(t.Context(), options, &endpoint{kind: storeSQLite}, filepath.Join(dir, "db"), filepath.Join(dir, "kine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// kine's VACUUM writes the whole database into the log once more.
func TestAStartDoesNotMakeAStoreLarger(t *testing.T) {
	dir := t.TempDir()
	s := openBoundedStore(t, dir)
	for i := range 50 {
		if _, err := s.bound.store.(*sqliteStore).Create(t.Context(), fmt.Sprintf("/registry/%d", i), make([]byte, 100_000), 0); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	s = openBoundedStore(t, dir)
	defer s.close()
	if now := s.bound.fill(); now.full || now.bytes < 5_000_000 {
		t.Errorf("%+v", now)
	}
}

// A log of a few MiB is no reason to say that it is full, and to take that back when the log is truncated.
func TestALogFillsNoStore(t *testing.T) {
	s := openBoundedStore(t, t.TempDir())
	defer s.close()
	sqlite := s.bound.store.(*sqliteStore)
	for i := 0; ; i++ {
		if _, err := sqlite.Create(t.Context(), fmt.Sprintf("/registry/%d", i), make([]byte, 100_000), 0); err != nil {
			t.Fatal(err)
		}
		s.bound.measure(t.Context())
		if s.bound.fill().full {
			break
		}
	}
	sqlite.trim(t.Context())
	s.bound.measure(t.Context())
	if now := s.bound.fill(); !now.full || now.bytes < 8_000_000 {
		t.Errorf("%+v", now)
	}
}

// The file does not shrink, but what was deleted counts no more after the second compaction from then, though all of it is
// newer than a thousand revisions.
func TestWhatIsDeletedMakesRoom(t *testing.T) {
	ctx := t.Context()
	s := openBoundedStore(t, t.TempDir())
	defer s.close()
	if s.bound.fill().full {
		t.Fatalf("full at once: %+v", s.bound.fill())
	}
	sqlite := s.bound.store.(*sqliteStore)
	value, revisions := make([]byte, 100_000), map[string]int64{}
	for i := range 100 {
		key := fmt.Sprintf("/registry/configmaps/a/%d", i)
		revision, err := sqlite.Create(ctx, key, value, 0)
		if err != nil {
			t.Fatal(err)
		}
		revisions[key] = revision
	}
	s.bound.measure(ctx)
	if now := s.bound.fill(); !now.full || now.bytes < 10_000_000 {
		t.Fatalf("%+v", now)
	}
	for key, revision := range revisions {
		if _, _, ok, err := sqlite.Delete(ctx, key, revision); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	before := s.bound.fill().bytes
	sqlite.compact(ctx, true)
	s.bound.measure(ctx)
	if now := s.bound.fill().bytes; now > before*21/10 {
		t.Errorf("what is deleted takes more than once more: %d after %d", now, before)
	}
	if !s.bound.fill().full {
		t.Fatalf("what is newer than the last compaction is kept for who reads it: %+v", s.bound.fill())
	}
	sqlite.compact(ctx, true)
	s.bound.measure(ctx)
	if now := s.bound.fill(); now.full || now.bytes > 1_000_000 {
		t.Errorf("%+v", now)
	}
}
