// A real OpenID provider for the end-to-end tests: the one of github.com/zitadel/oidc with its example's storage, by TLS.
//
//	issuer URL LISTEN CERTIFICATE KEY
//
// Its user is test-user@URL's host with the password "verysecure", whose sub is "id1"; its public client is "native".
package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: issuer URL LISTEN CERTIFICATE KEY")
		os.Exit(2)
	}
	issuer, listen, certificate, key := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	storage.RegisterClients(storage.NativeClient("native", "http://127.0.0.1/callback"))
	users := storage.NewUserStore(issuer)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server := &http.Server{
		Addr:              listen,
		Handler:           exampleop.SetupServer(issuer, storage.NewStorage(users), logger, false),
		ReadHeaderTimeout: 10 * time.Second,
	}
	if err := server.ListenAndServeTLS(certificate, key); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
