package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// faults stands before the simulator, counts calls and breaks some of them:
//
//	GET  /test/calls                       how often each method was called, as JSON
//	GET  /test/sessions                    how many sessions there are
//	GET  /test/vms                         the VMs that are no templates, as JSON
//	POST /test/end-sessions                ends them all, as a restart of the service does
//	POST /test/lose?method=M&count=N       the next N calls of M are carried out, their replies lost; with ms=T,
//	                                       nothing is heard for so long before
//	POST /test/refuse?method=M&count=N     the next N calls of M are answered 503 and not carried out
//	POST /test/fault?method=M&count=N&type=T  the next N calls of M answer the fault T; for InvalidPowerState, with
//	                                          requested= and existing=
//	POST /test/fail?method=M&count=N&type=T   the tasks of the next N calls of M fail with the fault T
//	POST /test/slow?method=M&count=N&ms=T     the tasks of the next N calls of M take T milliseconds
//	POST /test/foreign?name=N&uuid=U       makes a VM in our folder that is not ours, and not new
//	POST /test/forget?uuid=U               takes a VM out of the inventory
//	POST /test/drop-snapshots?uuid=U       removes its snapshots
//	POST /test/tools?uuid=U&running=false  stops the tools in its guest
//	POST /test/guest?uuid=U&state=S        what its guest is doing, e.g. shuttingDown
//	GET  /test/templates                   the VMs that are templates, as JSON
//	GET  /test/files                       sizes of the ISO images on the datastore, whole and half, as JSON
//	GET  /test/uploads                     what was uploaded, as JSON
//	POST /test/upload?count=N&after=B&status=S  the next N uploads end after B bytes with the status S, or without a word
//	POST /test/host?thumbprint=T           disks go to a host of its own; T is told to be its thumbprint, or the right one
//	POST /test/host?url=U                  disks go to U, where nobody may be
//	POST /test/lease?type=T                the next lease fails with the fault T
type faults struct {
	*world
	next     http.Handler
	loseRate float64

	mu           sync.Mutex
	calls        map[string]int
	lose, refuse map[string]int
	silence      time.Duration
	uploads      []upload
	broken       brokenUpload
}

// upload is what came with a file.
type upload struct {
	Method      string `json:"method"`
	Path        string `json:"path"`
	ContentType string `json:"content_type"`
	Overwrite   string `json:"overwrite"`
}

// brokenUpload is what becomes of the next uploads.
type brokenUpload struct {
	count, status int
	after         int64
}

func newFaults(next http.Handler, w *world, loseRate float64) http.Handler {
	f := &faults{
		world: w, next: next, loseRate: loseRate,
		calls: map[string]int{}, lose: map[string]int{}, refuse: map[string]int{}, uploads: []upload{},
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
		f.making.RLock()
		defer f.making.RUnlock()
		_ = json.NewEncoder(w).Encode(machines(f.model.Map()))
	})
	mux.HandleFunc("GET /test/templates", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(offered(f.model.Map()))
	})
	mux.HandleFunc("GET /test/files", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(f.files())
	})
	mux.HandleFunc("GET /test/uploads", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		_ = json.NewEncoder(w).Encode(f.uploads)
	})
	mux.HandleFunc("POST /test/upload", func(_ http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.broken.count, _ = strconv.Atoi(r.FormValue("count"))
		f.broken.status, _ = strconv.Atoi(r.FormValue("status"))
		f.broken.after, _ = strconv.ParseInt(r.FormValue("after"), 10, 64)
	})
	mux.HandleFunc("POST /test/host", func(_ http.ResponseWriter, r *http.Request) {
		f.leadTo(mux, r.FormValue("url"), r.FormValue("thumbprint"))
	})
	mux.HandleFunc("POST /test/lease", func(_ http.ResponseWriter, r *http.Request) {
		f.planned.Lock()
		defer f.planned.Unlock()
		f.leaseFault = fault(r)
	})
	mux.HandleFunc("POST /test/end-sessions", func(_ http.ResponseWriter, _ *http.Request) {
		for _, key := range f.sessionKeys() {
			caller := &simulator.Context{Session: &simulator.Session{}}
			f.model.Map().SessionManager().TerminateSession(caller, &types.TerminateSession{SessionId: []string{key}})
		}
	})
	mux.HandleFunc("POST /test/lose", f.plan(f.lose))
	mux.HandleFunc("POST /test/refuse", f.plan(f.refuse))
	mux.HandleFunc("POST /test/fault", f.inject)
	mux.HandleFunc("POST /test/fail", f.planTask)
	mux.HandleFunc("POST /test/slow", f.planTask)
	for path, change := range map[string]func(*simulator.Context, *http.Request) error{
		"foreign": f.foreign, "forget": f.forget, "drop-snapshots": f.dropSnapshots, "tools": f.tools, "guest": f.guest,
	} {
		mux.HandleFunc("POST /test/"+path, func(w http.ResponseWriter, r *http.Request) {
			if err := change(f.own(), r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
	mux.HandleFunc("/", f.serve)
	return mux
}

// sessionKeys asks the simulator as a client would: its own list is private.
func (f *faults) sessionKeys() []string {
	own := &simulator.Session{Registry: simulator.NewRegistry(), Map: f.model.Map()}
	list := own.Get(f.model.Map().SessionManager().Self).(*simulator.SessionManager).SessionList
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
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		f.silence = time.Duration(ms) * time.Millisecond
	}
}

// fault makes one of its type's name; nil where there is no such type.
func fault(r *http.Request) types.BaseMethodFault {
	kind, known := types.TypeFunc()(r.FormValue("type"))
	if !known {
		return nil
	}
	fault, _ := reflect.New(kind).Interface().(types.BaseMethodFault)
	if power, is := fault.(*types.InvalidPowerState); is {
		power.RequestedState = types.VirtualMachinePowerState(r.FormValue("requested"))
		power.ExistingState = types.VirtualMachinePowerState(r.FormValue("existing"))
	}
	return fault
}

func (f *faults) inject(w http.ResponseWriter, r *http.Request) {
	fault := fault(r)
	if fault == nil {
		http.Error(w, "unknown type", http.StatusBadRequest)
		return
	}
	count, _ := strconv.Atoi(r.FormValue("count"))
	f.model.Service.AddFaultRule(&simulator.FaultInjectionRule{
		MethodName: r.FormValue("method"), ObjectType: "*", ObjectName: "*",
		Probability: 1, FaultType: simulator.FaultTypeCustom, Fault: fault, MaxCount: count, Enabled: true,
	})
}

func (f *faults) planTask(w http.ResponseWriter, r *http.Request) {
	plan := plan{fault: fault(r)}
	if ms, err := strconv.Atoi(r.FormValue("ms")); err == nil {
		plan.delay = time.Duration(ms) * time.Millisecond
	}
	if plan.fault == nil && plan.delay == 0 {
		http.Error(w, "neither a known type nor ms", http.StatusBadRequest)
		return
	}
	count, _ := strconv.Atoi(r.FormValue("count"))
	f.planned.Lock()
	defer f.planned.Unlock()
	for range count {
		f.plans[r.FormValue("method")] = append(f.plans[r.FormValue("method")], plan)
	}
}

var bodyElement = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)`)

// receive takes a file. It does not come whole before it goes on, unlike calls.
func (f *faults) receive(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.uploads = append(f.uploads, upload{
		Method: r.Method, Path: r.URL.Path,
		ContentType: r.Header.Get("Content-Type"), Overwrite: r.Header.Get("Overwrite"),
	})
	broken := f.broken
	f.broken.count = max(0, f.broken.count-1)
	f.mu.Unlock()
	if broken.count == 0 {
		f.next.ServeHTTP(w, r)
		return
	}
	rest := r.Body
	r.Body = io.NopCloser(io.LimitReader(rest, broken.after))
	f.next.ServeHTTP(httptest.NewRecorder(), r)
	if broken.status == 0 {
		panic(http.ErrAbortHandler)
	}
	// The rest is taken meanwhile, or a connection that closes would take the answer with it.
	answer := http.NewResponseController(w)
	_ = answer.EnableFullDuplex()
	http.Error(w, "There is not enough space on the file system.", broken.status)
	_ = answer.Flush()
	_, _ = io.Copy(io.Discard, rest)
}

func (f *faults) serve(w http.ResponseWriter, r *http.Request) {
	isFile := strings.HasPrefix(r.URL.Path, "/nfc/") || strings.HasPrefix(r.URL.Path, "/folder/")
	if isFile && (r.Method == http.MethodPost || r.Method == http.MethodPut) {
		f.receive(w, r)
		return
	}
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
		f.making.RLock()
		defer f.making.RUnlock()
	}
	switch f.fate(method) {
	case refused:
		http.Error(w, "no healthy upstream", http.StatusServiceUnavailable)
	case lost:
		f.next.ServeHTTP(httptest.NewRecorder(), r)
		f.mu.Lock()
		silence := f.silence
		f.mu.Unlock()
		time.Sleep(silence)
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
