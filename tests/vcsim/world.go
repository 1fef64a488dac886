package main

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const toolsRun = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)

// world is the simulator with what it lacks: tasks that take their time, can be cancelled or fail, guests without tools,
// snapshots that bring a VM back, tickets for consoles, and things that happen behind a client's back.
type world struct {
	model      *simulator.Model
	cloneDelay func() time.Duration
	username   string
	// Held for writing while a slow task does its work, and for reading by every call.
	making sync.RWMutex

	planned sync.Mutex
	plans   map[string][]plan
	// Where the next leases lead, and how they end; empty: to the simulator, and well.
	host, thumbprint string
	leaseFault       types.BaseMethodFault
}

// plan is what becomes of the next task of a method.
type plan struct {
	delay time.Duration
	fault types.BaseMethodFault
}

func newWorld(model *simulator.Model, cloneDelay func() time.Duration, username string) *world {
	return &world{model: model, cloneDelay: cloneDelay, username: username, plans: map[string][]plan{}}
}

// takeOver makes clients meet this world; the inventory is laid out before.
func (w *world) takeOver() {
	w.model.Map().Handler = w.standIn
	w.model.Map().AddHandler(owner{w})
}

// owner names the account on each task, where the simulator names itself.
type owner struct{ *world }

func (owner) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "TestHandler", Value: "owner"}
}

func (o owner) PutObject(_ *simulator.Context, object mo.Reference) {
	if task, is := object.(*simulator.Task); is {
		task.Info.Reason = &types.TaskReasonUser{UserName: o.username}
	}
}

// UpdateObject lets a lease that becomes ready lead to another host, or fail.
func (o owner) UpdateObject(_ *simulator.Context, object mo.Reference, changes []types.PropertyChange) {
	lease, is := object.(*mo.HttpNfcLease)
	if !is {
		return
	}
	o.planned.Lock()
	defer o.planned.Unlock()
	for _, change := range changes {
		info, is := change.Val.(*types.HttpNfcLeaseInfo)
		if !is {
			continue
		}
		for i := range info.DeviceUrl {
			o.redirect(&info.DeviceUrl[i])
		}
		if o.leaseFault != nil {
			lease.State = types.HttpNfcLeaseStateError
			lease.Error = &types.LocalizedMethodFault{Fault: o.leaseFault, LocalizedMessage: "planned by the test"}
			o.leaseFault = nil
		}
	}
}

func (w *world) redirect(device *types.HttpNfcLeaseDeviceUrl) {
	if w.host == "" {
		return
	}
	if _, path, found := strings.Cut(device.Url, "/nfc/"); found {
		device.Url = w.host + "/nfc/" + path
	}
	device.SslThumbprint = w.thumbprint
}

// leadTo makes leases lead to another host: one of its own, whose certificate no authority has signed, where no URL is given.
func (w *world) leadTo(handler http.Handler, url, thumbprint string) {
	if url == "" {
		host := httptest.NewTLSServer(handler)
		url = host.URL
		if thumbprint == "" {
			thumbprint = soap.ThumbprintSHA1(host.Certificate())
		}
	}
	w.planned.Lock()
	defer w.planned.Unlock()
	w.host, w.thumbprint = url, thumbprint
}

// files gives the sizes of the ISO images on the datastore.
func (w *world) files() map[string]int64 {
	root := w.model.Map().Any("Datastore").(*simulator.Datastore).Summary.Url
	sizes := map[string]int64{}
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.Contains(entry.Name(), ".iso") {
			if info, err := entry.Info(); err == nil {
				sizes[strings.TrimPrefix(path, root+"/")] = info.Size()
			}
		}
		return nil
	})
	return sizes
}

func (owner) RemoveObject(*simulator.Context, types.ManagedObjectReference) {}

// standIn puts an object of ours in the way of a call, where the simulator's own would not do. The simulator prefers what
// it finds among the objects of the session; ours leaves again when it is called.
func (w *world) standIn(ctx *simulator.Context, call *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session == nil {
		return nil, nil
	}
	switch call.Name {
	case "CreateVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "ReconfigVM_Task", "CreateSnapshot_Task", "Destroy_Task",
		"RevertToSnapshot_Task", "ShutdownGuest", "AcquireTicket", "MarkAsTemplate":
	default:
		return nil, nil
	}
	switch object := ctx.Map.Get(call.This).(type) {
	case *simulator.VirtualMachine:
		ctx.Session.Registry.Put(&guest{object, w})
	case *simulator.VirtualMachineSnapshot:
		ctx.Session.Registry.Put(&snapshot{object, w})
	case *simulator.Folder:
		ctx.Session.Registry.Put(&folder{object, w})
	}
	return nil, nil
}

func leave(ctx *simulator.Context, object mo.Reference) {
	ctx.Session.Registry.Remove(ctx, object.Reference())
}

// take gives the plan for a task of a method, if there is one.
func (w *world) take(method string) (plan, bool) {
	w.planned.Lock()
	defer w.planned.Unlock()
	plans := w.plans[method]
	if len(plans) == 0 {
		return plan{}, false
	}
	w.plans[method] = plans[1:]
	return plans[0], true
}

var slowTasks atomic.Uint32

// begin starts a task that waits, then has the simulator's own task do the work. The simulator could delay that one by
// itself, but holds the object's lock meanwhile, or lets others read a clone half made and now and then dies of it.
func (w *world) begin(
	ctx *simulator.Context, entity mo.Reference, name string, plan plan, work func() soap.HasFault, after func(result any),
) types.ManagedObjectReference {
	task := simulator.CreateTask(entity, name, nil)
	task.Self = types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("task-slow-%d", slowTasks.Add(1))}
	task.Info.Key, task.Info.Task, task.Info.Cancelable = task.Self.Value, task.Self, true
	task.Info.State, task.Info.StartTime = types.TaskInfoStateRunning, types.NewTime(time.Now())
	ctx.Map.Put(task)
	own := w.own()
	go func() {
		time.Sleep(plan.delay)
		w.making.Lock()
		defer w.making.Unlock()
		var cancelled bool
		own.WithLock(task, func() { cancelled = task.Info.Cancelled })
		if cancelled {
			return
		}
		result, failure := carryOut(own, plan, work)
		state := types.TaskInfoStateSuccess
		if failure != nil {
			state = types.TaskInfoStateError
		} else if after != nil {
			after(result)
		}
		ctx.Map.AtomicUpdate(own, task, []types.PropertyChange{
			{Name: "info.completeTime", Val: time.Now()},
			{Name: "info.state", Val: state},
			{Name: "info.result", Val: result},
			{Name: "info.error", Val: failure},
		})
	}()
	return task.Self
}

func carryOut(ctx *simulator.Context, plan plan, work func() soap.HasFault) (any, any) {
	if plan.fault != nil {
		return nil, types.LocalizedMethodFault{Fault: plan.fault, LocalizedMessage: "planned by the test"}
	}
	body := work()
	if fault := body.Fault(); fault != nil {
		return nil, types.LocalizedMethodFault{Fault: fault.VimFault().(types.BaseMethodFault)}
	}
	task := ctx.Map.Get(started(body)).(*simulator.Task)
	task.Wait()
	if task.Info.Error != nil {
		return nil, *task.Info.Error
	}
	return task.Info.Result, nil
}

// started gives the task of a reply.
func started(body soap.HasFault) types.ManagedObjectReference {
	switch body := body.(type) {
	case *methods.CloneVM_TaskBody:
		return body.Res.Returnval
	case *methods.CreateVM_TaskBody:
		return body.Res.Returnval
	case *methods.PowerOnVM_TaskBody:
		return body.Res.Returnval
	case *methods.PowerOffVM_TaskBody:
		return body.Res.Returnval
	case *methods.ReconfigVM_TaskBody:
		return body.Res.Returnval
	case *methods.CreateSnapshot_TaskBody:
		return body.Res.Returnval
	case *methods.RevertToSnapshot_TaskBody:
		return body.Res.Returnval
	case *methods.Destroy_TaskBody:
		return body.Res.Returnval
	}
	panic(fmt.Sprintf("%T starts no task that is known here", body))
}

// own is a context that holds no locks of anybody's call.
func (w *world) own() *simulator.Context {
	ctx := *w.model.Service.Context
	return &ctx
}

// folder makes VMs as slowly as clones are made.
type folder struct {
	*simulator.Folder
	world *world
}

func (f *folder) CreateVMTask(ctx *simulator.Context, req *types.CreateVM_Task) soap.HasFault {
	leave(ctx, f)
	plan, _ := f.world.take("CreateVM_Task")
	if plan.delay == 0 {
		plan.delay = f.world.cloneDelay()
	}
	task := f.world.begin(ctx, f, "createVm", plan, func() soap.HasFault {
		return f.Folder.CreateVMTask(f.world.own(), req)
	}, nil)
	return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: task}}
}

// guest is a VM.
type guest struct {
	*simulator.VirtualMachine
	world *world
}

func (g *guest) PowerOnVMTask(ctx *simulator.Context, req *types.PowerOnVM_Task) soap.HasFault {
	leave(ctx, g)
	plan, planned := g.world.take("PowerOnVM_Task")
	if !planned {
		return g.VirtualMachine.PowerOnVMTask(ctx, req)
	}
	task := g.world.begin(ctx, g.VirtualMachine, "powerOn", plan, func() soap.HasFault {
		return g.VirtualMachine.PowerOnVMTask(g.world.own(), req)
	}, nil)
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: task}}
}

func (g *guest) PowerOffVMTask(ctx *simulator.Context, req *types.PowerOffVM_Task) soap.HasFault {
	leave(ctx, g)
	plan, planned := g.world.take("PowerOffVM_Task")
	if !planned {
		return g.VirtualMachine.PowerOffVMTask(ctx, req)
	}
	task := g.world.begin(ctx, g.VirtualMachine, "powerOff", plan, func() soap.HasFault {
		return g.VirtualMachine.PowerOffVMTask(g.world.own(), req)
	}, nil)
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: task}}
}

func (g *guest) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	leave(ctx, g)
	plan, planned := g.world.take("ReconfigVM_Task")
	if !planned {
		return g.VirtualMachine.ReconfigVMTask(ctx, req)
	}
	task := g.world.begin(ctx, g.VirtualMachine, "reconfigVm", plan, func() soap.HasFault {
		return g.VirtualMachine.ReconfigVMTask(g.world.own(), req)
	}, nil)
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: task}}
}

func (g *guest) CreateSnapshotTask(ctx *simulator.Context, req *types.CreateSnapshot_Task) soap.HasFault {
	leave(ctx, g)
	plan, planned := g.world.take("CreateSnapshot_Task")
	if !planned {
		return g.VirtualMachine.CreateSnapshotTask(ctx, req)
	}
	task := g.world.begin(ctx, g.VirtualMachine, "createSnapshot", plan, func() soap.HasFault {
		return g.VirtualMachine.CreateSnapshotTask(g.world.own(), req)
	}, nil)
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: task}}
}

func (g *guest) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	leave(ctx, g)
	plan, planned := g.world.take("Destroy_Task")
	if !planned {
		return g.VirtualMachine.DestroyTask(ctx, req)
	}
	task := g.world.begin(ctx, g.VirtualMachine, "destroy", plan, func() soap.HasFault {
		return g.VirtualMachine.DestroyTask(g.world.own(), req)
	}, nil)
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: task}}
}

// MarkAsTemplate makes one whose clones behave as those of the templates that were there before.
func (g *guest) MarkAsTemplate(ctx *simulator.Context, req *types.MarkAsTemplate) soap.HasFault {
	leave(ctx, g)
	reply := g.VirtualMachine.MarkAsTemplate(req)
	if reply.Fault() == nil {
		ctx.Map.Put(&source{g.VirtualMachine, g.world})
	}
	return reply
}

// ShutdownGuest needs tools that run, which the simulator does not look for.
func (g *guest) ShutdownGuest(ctx *simulator.Context, req *types.ShutdownGuest) soap.HasFault {
	leave(ctx, g)
	if g.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn && g.Guest.ToolsRunningStatus != toolsRun {
		return &methods.ShutdownGuestBody{Fault_: simulator.Fault("", new(types.ToolsUnavailable))}
	}
	return g.VirtualMachine.ShutdownGuest(ctx, req)
}

// AcquireTicket gives tickets for a console that is not there.
func (g *guest) AcquireTicket(ctx *simulator.Context, req *types.AcquireTicket) soap.HasFault {
	leave(ctx, g)
	if req.TicketType != string(types.VirtualMachineTicketTypeWebmks) {
		return &methods.AcquireTicketBody{Fault_: simulator.Fault("", &types.InvalidArgument{InvalidProperty: "ticketType"})}
	}
	if g.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return &methods.AcquireTicketBody{Fault_: simulator.Fault("", new(types.InvalidState))}
	}
	return &methods.AcquireTicketBody{Res: &types.AcquireTicketResponse{Returnval: types.VirtualMachineTicket{
		Ticket: rand.Text(), CfgFile: g.Config.Files.VmPathName, Host: "esx1.test", Port: 443, SslThumbprint: "00:00",
	}}}
}

// snapshot is one of a VM, whose return the simulator does not carry out.
type snapshot struct {
	*simulator.VirtualMachineSnapshot
	world *world
}

func (s *snapshot) RevertToSnapshotTask(ctx *simulator.Context, req *types.RevertToSnapshot_Task) soap.HasFault {
	leave(ctx, s)
	vm := ctx.Map.Get(s.Vm).(*simulator.VirtualMachine)
	plan, _ := s.world.take("RevertToSnapshot_Task")
	task := s.world.begin(ctx, vm, "revertToSnapshot", plan, func() soap.HasFault {
		return s.VirtualMachineSnapshot.RevertToSnapshotTask(s.world.own(), req)
	}, func(any) {
		own := s.world.own()
		own.WithLock(vm, func() {
			off := types.VirtualMachinePowerStatePoweredOff
			own.Update(vm, []types.PropertyChange{
				{Name: "runtime.powerState", Val: off},
				{Name: "summary.runtime.powerState", Val: off},
				{Name: "config.hardware.numCPU", Val: s.Config.Hardware.NumCPU},
				{Name: "config.hardware.memoryMB", Val: s.Config.Hardware.MemoryMB},
			})
		})
	})
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: task}}
}

func (w *world) machine(r *http.Request) (*simulator.VirtualMachine, error) {
	for _, entity := range w.model.Map().All("VirtualMachine") {
		vm, plain := entity.(*simulator.VirtualMachine)
		if plain && vm.Config.InstanceUuid == r.FormValue("uuid") {
			return vm, nil
		}
	}
	return nil, fmt.Errorf("there is no VM %s", r.FormValue("uuid"))
}

func (w *world) foreign(ctx *simulator.Context, r *http.Request) error {
	var home *simulator.Folder
	for _, entity := range w.model.Map().All("Folder") {
		if found, is := entity.(*simulator.Folder); is && found.Name == "virtualstack" {
			home = found
		}
	}
	pool := w.model.Map().Any("ResourcePool")
	reply := home.CreateVMTask(ctx, &types.CreateVM_Task{This: home.Self, Pool: pool.Reference(),
		Config: types.VirtualMachineConfigSpec{
			Name: r.FormValue("name"), InstanceUuid: r.FormValue("uuid"), GuestId: "otherGuest64",
			Files: &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"},
		}})
	task := w.model.Map().Get(started(reply)).(*simulator.Task)
	task.Wait()
	if task.Info.Error != nil {
		return fmt.Errorf("%T", task.Info.Error.Fault)
	}
	vm := w.model.Map().Get(task.Info.Result.(types.ManagedObjectReference)).(*simulator.VirtualMachine)
	vm.Config.CreateDate = types.NewTime(time.Now().Add(-time.Hour))
	return nil
}

func (w *world) forget(ctx *simulator.Context, r *http.Request) error {
	vm, err := w.machine(r)
	if err == nil {
		ctx.WithLock(vm, func() {
			vm.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOff
			vm.UnregisterVM(ctx, &types.UnregisterVM{This: vm.Self})
		})
	}
	return err
}

func (w *world) dropSnapshots(ctx *simulator.Context, r *http.Request) error {
	vm, err := w.machine(r)
	if err == nil {
		vm.RemoveAllSnapshotsTask(ctx, &types.RemoveAllSnapshots_Task{This: vm.Self})
	}
	return err
}

func (w *world) tools(ctx *simulator.Context, r *http.Request) error {
	status := toolsRun
	if r.FormValue("running") != "true" {
		status = string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning)
	}
	return w.set(ctx, r, "guest.toolsRunningStatus", status)
}

func (w *world) guest(ctx *simulator.Context, r *http.Request) error {
	return w.set(ctx, r, "guest.guestState", r.FormValue("state"))
}

func (w *world) set(ctx *simulator.Context, r *http.Request, property, value string) error {
	vm, err := w.machine(r)
	if err == nil {
		ctx.Map.AtomicUpdate(ctx, vm, []types.PropertyChange{{Name: property, Val: value}})
	}
	return err
}
