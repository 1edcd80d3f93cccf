package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

const defaultEtcdPrefix = "/registry"

// storeOptions say where the objects are kept. Where it is empty, SQLite in the data folder is meant.
type storeOptions struct {
	endpoint            string
	caFile              string
	certFile            string
	keyFile             string
	etcdPrefix          string
	compactInterval     time.Duration
	datastorePollPeriod time.Duration
	// Of --max-store-bytes.
	maxBytes string
}

// addStoreFlags takes the defaults from the environment: a password on a command line can be read by every process of the node.
func addStoreFlags(f *pflag.FlagSet, o *storeOptions, environment string) {
	text := func(to *string, flag, variable, usage string) {
		f.StringVar(to, flag, "", usage+" [$"+environment+variable+"]")
		*to = os.Getenv(environment + variable)
	}
	text(&o.endpoint, "datastore-endpoint", "_ENDPOINT", "mysql://USER:PASSWORD@tcp(HOST:3306)/DATABASE, postgres://USER:PASSWORD@HOST:5432/DATABASE or http(s)://HOST:2379,... of etcd, instead of SQLite")
	text(&o.caFile, "datastore-cafile", "_CAFILE", "CA the database's certificate is checked with")
	text(&o.certFile, "datastore-certfile", "_CERTFILE", "client certificate shown to the database")
	text(&o.keyFile, "datastore-keyfile", "_KEYFILE", "key of that certificate")
}

type storeKind int

const (
	storeSQLite storeKind = iota
	storeMySQL
	storePostgres
	storeEtcd
)

// endpoint is a --datastore-endpoint taken apart. Its text may hold a password: never log it.
type endpoint struct {
	kind storeKind
	// What follows mysql:// or postgres://, as kine wants it.
	dsn string
	// The URLs of etcd.
	servers []string
	secrets redactor
}

// shared is true when more than one replica can use the store.
func (e *endpoint) shared() bool { return e.kind != storeSQLite }

func parseEndpoint(text string) (*endpoint, error) {
	if text == "" {
		return &endpoint{kind: storeSQLite}, nil
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, errors.New("--datastore-endpoint has no scheme: it must begin with mysql://, postgres://, http:// or https:// (empty: SQLite)")
	}
	if rest == "" {
		return nil, fmt.Errorf("--datastore-endpoint %s:// names no database", scheme)
	}
	switch scheme {
	case "mysql":
		return parseMySQL(rest)
	case "postgres", "postgresql":
		return parsePostgres(rest)
	case "http", "https":
		return parseEtcd(text)
	default:
		return nil, fmt.Errorf("--datastore-endpoint %s:// is of a kind that is not built in: mysql://, postgres://, http:// and https:// (etcd) are; empty means SQLite", scheme)
	}
}

func parseMySQL(dsn string) (*endpoint, error) {
	slash := strings.LastIndex(dsn, "/")
	if slash < 0 {
		return nil, errors.New("--datastore-endpoint: mysql:// needs a database: mysql://USER:PASSWORD@tcp(HOST:3306)/DATABASE")
	}
	e := &endpoint{kind: storeMySQL, dsn: dsn}
	if at := strings.LastIndex(dsn[:slash], "@"); at >= 0 {
		if _, password, ok := strings.Cut(dsn[:at], ":"); ok {
			e.secrets.add(password)
		}
	}
	return e, nil
}

func parsePostgres(dsn string) (*endpoint, error) {
	// An error of url.Parse quotes the whole text.
	u, err := url.Parse("postgres://" + dsn)
	if err != nil || u.Host == "" {
		return nil, errors.New("--datastore-endpoint: not a valid URL: postgres://USER:PASSWORD@HOST:5432/DATABASE, with %XX for special characters of the password")
	}
	e := &endpoint{kind: storePostgres, dsn: dsn}
	if password, ok := u.User.Password(); ok {
		e.secrets.add(password)
		e.secrets.add(url.QueryEscape(password))
		// As it was written: there is more than one way to escape.
		_, raw, _ := strings.Cut(dsn[:strings.LastIndex(dsn, "@")], ":")
		e.secrets.add(raw)
	}
	e.secrets.add(u.Query().Get("password"))
	return e, nil
}

func parseEtcd(text string) (*endpoint, error) {
	e := &endpoint{kind: storeEtcd}
	for _, server := range strings.Split(text, ",") {
		server = strings.TrimSuffix(strings.TrimSpace(server), "/")
		u, err := url.Parse(server)
		switch {
		case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
			return nil, errors.New("--datastore-endpoint: etcd is given as http://HOST:2379 or https://HOST:2379, several separated by commas")
		case u.User != nil:
			return nil, errors.New("--datastore-endpoint: etcd takes no user and password in the URL, use --datastore-certfile and --datastore-keyfile")
		case u.Path != "" || u.RawQuery != "":
			return nil, errors.New("--datastore-endpoint: the URL of etcd has no path")
		}
		e.servers = append(e.servers, server)
	}
	return e, nil
}

func (o *storeOptions) check() error {
	if (o.certFile == "") != (o.keyFile == "") {
		return errors.New("--datastore-certfile and --datastore-keyfile go together")
	}
	if o.endpoint == "" && o.caFile+o.certFile != "" {
		return errors.New("--datastore-cafile, --datastore-certfile and --datastore-keyfile need --datastore-endpoint: SQLite is a file")
	}
	for _, file := range []string{o.caFile, o.certFile, o.keyFile} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("datastore: %w", err)
		}
	}
	return nil
}

// redactor replaces passwords in whatever others write about the database.
type redactor []string

func (r *redactor) add(secret string) {
	if secret != "" {
		*r = append(*r, secret)
	}
}

func (r redactor) text(s string) string {
	for _, secret := range r {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return s
}

// error loses the type of the error, which may carry the password in a field.
func (r redactor) error(err error) error {
	if err == nil || len(r) == 0 {
		return err
	}
	return errors.New(r.text(err.Error()))
}

func (r redactor) writer(to io.Writer) io.Writer {
	if len(r) == 0 {
		return to
	}
	return redactingWriter{r, to}
}

type redactingWriter struct {
	secrets redactor
	to      io.Writer
}

// Write gets one whole message with each call, as loggers do.
func (w redactingWriter) Write(line []byte) (int, error) {
	if _, err := io.WriteString(w.to, w.secrets.text(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
