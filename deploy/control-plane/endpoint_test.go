package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	for text, want := range map[string]endpoint{
		"":                                    {kind: storeSQLite},
		"mysql://u:p@tcp(db:3306)/one":        {kind: storeMySQL, dsn: "u:p@tcp(db:3306)/one", secrets: redactor{"p"}},
		"mysql://u:p@ss:w/o@tcp(db:3306)/one": {kind: storeMySQL, dsn: "u:p@ss:w/o@tcp(db:3306)/one", secrets: redactor{"p@ss:w/o"}},
		"mysql://u@tcp(db)/one?tls=true":      {kind: storeMySQL, dsn: "u@tcp(db)/one?tls=true"},
		"postgres://u:p%40s@db:5432/one":      {kind: storePostgres, dsn: "u:p%40s@db:5432/one", secrets: redactor{"p@s", "p%40s", "p%40s"}},
		"postgresql://db/one?password=secret": {kind: storePostgres, dsn: "db/one?password=secret", secrets: redactor{"secret"}},
		"https://a:2379, https://b:2379/":     {kind: storeEtcd, servers: []string{"https://a:2379", "https://b:2379"}},
	} {
		got, err := parseEndpoint(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got.kind != want.kind || got.dsn != want.dsn || !slices.Equal(got.servers, want.servers) || !slices.Equal(got.secrets, want.secrets) {
			t.Errorf("%q: %+v", text, got)
		}
		if got.shared() != (text != "") {
			t.Errorf("%q: shared is %v", text, got.shared())
		}
	}
}

// An error is logged, so it may not quote what it is about.
func TestWrongEndpointsAreNotQuoted(t *testing.T) {
	for _, text := range []string{
		"secret", "mysql://", "mysql://u:secret", "postgres://u:secret%zz@db/one", "postgres:///secret", "nats://u:secret@db",
		"https://u:secret@etcd:2379", "http://etcd:2379/secret", "https://etcd:2379,mysql://secret",
	} {
		_, err := parseEndpoint(text)
		if err == nil {
			t.Errorf("%q is accepted", text)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRedaction(t *testing.T) {
	e, err := parseEndpoint("postgres://u:p%40s@db/one")
	if err != nil {
		t.Fatal(err)
	}
	if got := e.secrets.error(errors.New("no entry for u:p@s and u:p%40s")).Error(); got != "no entry for u:*** and u:***" {
		t.Error(got)
	}
	var log bytes.Buffer
	line := "cannot reach p@s\n"
	if n, err := e.secrets.writer(&log).Write([]byte(line)); n != len(line) || err != nil || log.String() != "cannot reach ***\n" {
		t.Error(n, err, log.String())
	}
	plain := errors.New("as it was")
	if (redactor{}).error(plain) != plain {
		t.Error("without secrets the error keeps its type")
	}
}

func TestStoreFiles(t *testing.T) {
	for _, o := range []storeOptions{
		{endpoint: "https://e:2379", certFile: "endpoint.go"},
		{caFile: "endpoint.go"},
		{endpoint: "https://e:2379", caFile: "there-is-none"},
	} {
		if o.check() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	s := etcdStore(&storeOptions{caFile: "ca", certFile: "c", keyFile: "k"}, &endpoint{kind: storeEtcd, servers: []string{"https://a:1", "https://b:2"}})
	if s.flags["etcd-servers"] != "https://a:1,https://b:2" || s.flags["etcd-cafile"] != "ca" || s.flags["etcd-certfile"] != "c" || s.flags["etcd-keyfile"] != "k" || !s.shared {
		t.Errorf("%+v", s)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("PORTICO_DATASTORE_ENDPOINT", "https://from-environment:2379")
	t.Setenv("PORTICO_DATASTORE_CAFILE", "/ca")
	o, err := parse(nil)
	if err != nil || o.store.endpoint != "https://from-environment:2379" || o.store.caFile != "/ca" || o.store.etcdPrefix != "/registry" {
		t.Fatalf("%+v %v", o, err)
	}
	if o, err = parse([]string{"--datastore-endpoint=https://from-flag:2379"}); err != nil || o.store.endpoint != "https://from-flag:2379" {
		t.Fatalf("%+v %v", o, err)
	}
}

func TestLeaderElection(t *testing.T) {
	for _, c := range []struct {
		args   []string
		shared bool
		want   string
	}{
		{nil, false, "false"},
		{nil, true, "true"},
		{[]string{"--leader-elect"}, false, "true"},
		{[]string{"--leader-elect=false"}, true, "false"},
	} {
		o, err := parse(c.args)
		if err != nil {
			t.Fatal(err)
		}
		if got := controllerFlags(o, &runtimeFiles{}, c.shared)["leader-elect"]; got != c.want {
			t.Errorf("%v shared=%v: %s", c.args, c.shared, got)
		}
	}
	if _, err := parse([]string{"--leader-elect=perhaps"}); err == nil {
		t.Error("perhaps is accepted")
	}
}
