// Command vcsim is a vCenter for tests: govmomi's simulator behind TLS that clients can verify, with templates to clone,
// slow clones, sessions that end, and faults on demand.
//
// It serves loopback only and holds everything in memory. When it is ready it writes how to reach it to -ready-file. Tests
// steer it while it runs through /test (see faults.go).
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // the REST endpoint that govc logs in to for tags
	"github.com/vmware/govmomi/vim25/types"
)

type options struct {
	listen, readyFile, tlsDir    string
	username, password           string
	cloneDelayMin, cloneDelayMax time.Duration
	methodDelay, sessionIdle     time.Duration
	loseReplies                  float64
	plain, stdinGuard            bool
}

func parse() options {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "loopback `address` to serve")
	flag.StringVar(&o.readyFile, "ready-file", "", "write url, username, password and ca_file as JSON to this `file` once ready")
	flag.StringVar(&o.tlsDir, "tls-dir", "", "`folder` of the certificates; a CA found there is kept (default: beside the ready file)")
	flag.BoolVar(&o.plain, "plain", false, "serve plain HTTP")
	flag.StringVar(&o.username, "username", "virtualstack@vsphere.local", "the only `user` that may log in")
	flag.StringVar(&o.password, "password", "secret", "their `password`")
	flag.DurationVar(&o.cloneDelayMin, "clone-delay-min", 0, "how long a clone takes, at least")
	flag.DurationVar(&o.cloneDelayMax, "clone-delay-max", 0, "how long a clone takes, at most")
	flag.DurationVar(&o.methodDelay, "method-delay", 0, "delay of every call")
	flag.DurationVar(&o.sessionIdle, "session-idle", 0, "end sessions that are idle for this long; 0: never")
	flag.Float64Var(&o.loseReplies, "lose-replies", 0, "`probability` that a call that starts a task is carried out but its reply lost")
	flag.BoolVar(&o.stdinGuard, "stdin-guard", false, "end when standard input closes")
	flag.Parse()
	return o
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("vcsim: ")
	if err := run(parse()); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("-listen: %s is not a loopback address", host)
	}

	model := simulator.VPX()
	model.Host, model.Machine = 0, 0 // one cluster, so that there is one resource pool to find; machines are ours
	model.DelayConfig.Delay = int(o.methodDelay.Milliseconds())
	defer model.Remove()
	if err := model.Create(); err != nil {
		return err
	}
	world := newWorld(model, between(o.cloneDelayMin, o.cloneDelayMax), o.username)
	if err := world.populate(ctx); err != nil {
		return err
	}
	world.takeOver()
	if o.sessionIdle > 0 {
		model.Map().OptionManager().UpdateOptions(&types.UpdateOptions{ChangedValue: []types.BaseOptionValue{
			&types.OptionValue{Key: "config.vmacore.soap.sessionTimeout", Value: o.sessionIdle.String()},
		}})
	}

	ready := readiness{Username: o.username, Password: o.password}
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{Host: o.listen, User: url.UserPassword(o.username, o.password)}
	if !o.plain {
		dir := o.tlsDir
		if dir == "" {
			dir = filepath.Dir(o.readyFile)
		}
		var certificate tls.Certificate
		if ready.CAFile, certificate, err = certificates(dir); err != nil {
			return err
		}
		model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	server := model.Service.NewServer()
	// Nobody knows the address before the ready file is written, so the handler may still be replaced.
	server.Config.Handler = newFaults(server.Config.Handler, world, o.loseReplies)
	address := *server.URL
	address.User = nil
	ready.URL = address.String()
	if err := ready.write(o.readyFile); err != nil {
		return err
	}
	log.Printf("serving %s", ready.URL)

	if o.stdinGuard {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	<-ctx.Done()
	return nil // without closing the server, which would wait for calls under way
}

// between gives a random time of a range.
func between(least, most time.Duration) func() time.Duration {
	return func() time.Duration {
		if most <= least {
			return least
		}
		return least + rand.N(most-least)
	}
}

// readiness is what a client needs to know.
type readiness struct {
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
	CAFile   string `json:"ca_file,omitempty"`
}

// write makes the file appear whole, as others wait for it.
func (r readiness) write(file string) error {
	if file == "" {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	partial := file + ".partial"
	return errors.Join(os.WriteFile(partial, append(text, '\n'), 0o600), os.Rename(partial, file))
}
