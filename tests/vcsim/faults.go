package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// faults stands before the simulator, counts calls and breaks some of them:
//
//	GET  /test/calls                       how often each method was called, as JSON
//	GET  /test/sessions                    how many sessions there are
//	GET  /test/vms                         the VMs that are no templates, as JSON
//	POST /test/end-sessions                ends them all, as a restart of the service does
//	POST /test/lose?method=M&count=N       the next N calls of M are carried out, their replies lost
//	POST /test/refuse?method=M&count=N     the next N calls of M are answered 503 and not carried out
//	POST /test/fault?method=M&count=N&type=T  the next N calls of M answer the fault T of those below
type faults struct {
	next     http.Handler
	service  *simulator.Service
	sessions *simulator.SessionManager
	world    *sync.RWMutex
	loseRate float64

	mu           sync.Mutex
	calls        map[string]int
	lose, refuse map[string]int
}

var faultTypes = map[string]simulator.FaultType{
	"NotAuthenticated":           simulator.FaultTypeNotAuthenticated,
	"NoPermission":               simulator.FaultTypeNoPermission,
	"InvalidArgument":            simulator.FaultTypeInvalidArgument,
	"ManagedObjectNotFound":      simulator.FaultTypeManagedObjectNotFound,
	"ResourceInUse":              simulator.FaultTypeResourceInUse,
	"InsufficientResourcesFault": simulator.FaultTypeInsufficientResourcesFault,
}

func newFaults(next http.Handler, model *simulator.Model, world *sync.RWMutex, loseRate float64) http.Handler {
	f := &faults{
		next: next, service: model.Service, sessions: model.Map().SessionManager(), world: world, loseRate: loseRate,
		calls: map[string]int{}, lose: map[string]int{}, refuse: map[string]int{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /test/calls", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		_ = json.NewEncoder(w).Encode(f.calls)
	})
	mux.HandleFunc("GET /test/sessions", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strconv.Itoa(len(f.sessionKeys())))
	})
	mux.HandleFunc("GET /test/vms", func(w http.ResponseWriter, _ *http.Request) {
		world.RLock()
		defer world.RUnlock()
		_ = json.NewEncoder(w).Encode(machines(model.Map()))
	})
	mux.HandleFunc("POST /test/end-sessions", func(_ http.ResponseWriter, _ *http.Request) {
		for _, key := range f.sessionKeys() {
			caller := &simulator.Context{Session: &simulator.Session{}}
			f.sessions.TerminateSession(caller, &types.TerminateSession{SessionId: []string{key}})
		}
	})
	mux.HandleFunc("POST /test/lose", f.plan(f.lose))
	mux.HandleFunc("POST /test/refuse", f.plan(f.refuse))
	mux.HandleFunc("POST /test/fault", f.inject)
	mux.HandleFunc("/", f.serve)
	return mux
}

// sessionKeys asks the simulator as a client would: its own list is private.
func (f *faults) sessionKeys() []string {
	own := &simulator.Session{Registry: simulator.NewRegistry(), Map: f.service.Context.Map}
	list := own.Get(f.sessions.Self).(*simulator.SessionManager).SessionList
	keys := make([]string, len(list))
	for i := range list {
		keys[i] = list[i].Key
	}
	return keys
}

func (f *faults) plan(kind map[string]int) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		count, _ := strconv.Atoi(r.FormValue("count"))
		f.mu.Lock()
		defer f.mu.Unlock()
		kind[r.FormValue("method")] = count
	}
}

func (f *faults) inject(w http.ResponseWriter, r *http.Request) {
	fault, known := faultTypes[r.FormValue("type")]
	if !known {
		http.Error(w, "unknown type", http.StatusBadRequest)
		return
	}
	count, _ := strconv.Atoi(r.FormValue("count"))
	f.service.AddFaultRule(&simulator.FaultInjectionRule{
		MethodName: r.FormValue("method"), ObjectType: "*", ObjectName: "*",
		Probability: 1, FaultType: fault, MaxCount: count, Enabled: true,
	})
}

var bodyElement = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)`)

func (f *faults) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	match := bodyElement.FindSubmatch(body)
	if match == nil {
		f.next.ServeHTTP(w, r)
		return
	}
	method := string(match[1])
	if method != "WaitForUpdatesEx" { // which waits for long
		f.world.RLock()
		defer f.world.RUnlock()
	}
	switch f.fate(method) {
	case refused:
		http.Error(w, "no healthy upstream", http.StatusServiceUnavailable)
	case lost:
		f.next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler) // closes the connection without a word
	default:
		f.next.ServeHTTP(w, r)
	}
}

type fate int

const (
	served fate = iota
	refused
	lost
)

func (f *faults) fate(method string) fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[method]++
	switch {
	case f.refuse[method] > 0:
		f.refuse[method]--
		return refused
	case f.lose[method] > 0:
		f.lose[method]--
		return lost
	case f.loseRate > 0 && strings.HasSuffix(method, "_Task") && rand.Float64() < f.loseRate:
		return lost
	}
	return served
}
