package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/klog/v2"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// plane is what serve starts: the flags of both parts, and how to know that the API server lives.
type plane struct {
	arguments
	publicPort int
	// Where the store may grow to, when it is bounded.
	bound *storeBound
	// By which its metrics API is asked for, where there is one.
	relay *metricsRelay
	probe *prober
	// made, when set, gets the API server before it runs.
	made func(*apiServer)
}

// untilSignal calls what runs until the context ends, and ends it at SIGTERM; a second signal ends the process at once.
func untilSignal(name string, body func(context.Context) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	// The controllers end the process when they miss the API server, which while it ends would cut its end short.
	klog.OsExit = func(code int) {
		if ctx.Err() != nil {
			select {}
		}
		os.Exit(code)
	}
	err := body(ctx)
	klog.Flush()
	// Told to end while it still waited for something: no failure.
	if err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// serve returns nil only after the end of the context and an orderly end.
func serve(ctx context.Context, p *plane) error {
	// In this order: making the controller manager changes a feature gate, which must not be on a flag set yet.
	controllerManager := controllers.NewControllerManagerCommand()
	controllerManager.SetArgs(p.controllerManager)
	controllerManager.SilenceErrors = true
	// The API server has a context of its own, so that it ends when something else fails, too.
	life, end := context.WithCancel(ctx)
	defer end()
	server, err := newAPIServer(life, p.apiServer, p.publicPort, p.bound, p.relay)
	if err != nil {
		return describe("kube-apiserver", err)
	}
	if p.made != nil {
		p.made(server)
	}
	ran, controllersEnded := make(chan struct{}), make(chan error, 1)
	var result error
	go func() {
		result = server.run(life)
		close(ran)
	}()
	if err := p.probe.await(ctx, ran); err != nil && ctx.Err() == nil {
		end()
		<-ran
		return describe("kube-apiserver", errors.Join(err, result))
	} else if err == nil {
		// Its command takes no context: it ends with the process.
		go func() { controllersEnded <- controllerManager.Execute() }()
	}
	select {
	case <-ran:
		if ctx.Err() == nil {
			return describe("kube-apiserver", result)
		}
	case err := <-controllersEnded:
		end()
		<-ran
		return describe("kube-controller-manager", err)
	case <-ctx.Done():
	}
	<-ran
	return result
}

// describe makes an error of every end, since none of the parts may end by itself.
func describe(part string, err error) error {
	if err == nil {
		return fmt.Errorf("%s ended", part)
	}
	return fmt.Errorf("%s: %w", part, err)
}

// makeRunFolder holds what is made anew at each start.
func makeRunFolder(dataDir string) (string, error) {
	absolute, err := filepath.Abs(dataDir)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(absolute, "run")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if len(dir) > maxSocketFolder {
		return "", errors.New(dir + ": too long for the path of a socket, choose a shorter --data-dir")
	}
	return dir, nil
}

// A socket's address has 108 bytes, the end of the longest name among them.
const maxSocketFolder = 107 - len("/etcd.sock")
