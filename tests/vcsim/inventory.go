package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Instance UUIDs stay the same from start to start, as those of a real vCenter do.
var templates = []struct {
	name, guest, instanceUUID, annotation string
	cpus                                  int32
	memoryMiB, diskGiB                    int64
}{
	{"debian-12", "debian12_64Guest", "5027a1de-0000-4000-8000-00000000d012", "Debian 12 (bookworm), cloud image", 1, 1024, 10},
	{"ubuntu-24.04", "ubuntu64Guest", "5027a1de-0000-4000-8000-000000002404", "Ubuntu 24.04 LTS, cloud image", 2, 2048, 20},
	{"windows-2022", "windows2019srvNext_64Guest", "5027a1de-0000-4000-8000-000000002022", "Windows Server 2022, sysprepped", 2, 4096, 40},
}

// populate lays out an inventory: three templates in the folder "templates", and an empty folder "virtualstack".
func populate(
	ctx context.Context, model *simulator.Model, delay func() time.Duration, world *sync.RWMutex,
) error {
	client, err := vim25.NewClient(ctx, model.Service)
	if err != nil {
		return err
	}
	finder := find.NewFinder(client)
	dc, err := finder.DefaultDatacenter(ctx)
	if err != nil {
		return err
	}
	folders, err := dc.Folders(ctx)
	if err != nil {
		return err
	}
	if _, err := folders.VmFolder.CreateFolder(ctx, "virtualstack"); err != nil {
		return err
	}
	home, err := folders.VmFolder.CreateFolder(ctx, "templates")
	if err != nil {
		return err
	}
	pool, err := finder.SetDatacenter(dc).DefaultResourcePool(ctx)
	if err != nil {
		return err
	}
	network, err := finder.NetworkOrDefault(ctx, "VM Network")
	if err != nil {
		return err
	}
	nic, err := network.EthernetCardBackingInfo(ctx)
	if err != nil {
		return err
	}

	for _, t := range templates {
		var devices object.VirtualDeviceList
		scsi, err := devices.CreateSCSIController("pvscsi")
		if err != nil {
			return err
		}
		disk := devices.CreateDisk(scsi.(types.BaseVirtualController), types.ManagedObjectReference{},
			fmt.Sprintf("[LocalDS_0] %s/disk1.vmdk", t.name))
		disk.CapacityInKB = t.diskGiB << 20
		card, err := devices.CreateEthernetCard("vmxnet3", nic)
		if err != nil {
			return err
		}
		devices = append(devices, scsi, disk, card)
		spec := types.VirtualMachineConfigSpec{
			Name: t.name, InstanceUuid: t.instanceUUID, GuestId: t.guest, Annotation: t.annotation,
			NumCPUs: t.cpus, MemoryMB: t.memoryMiB,
			Files: &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"},
			ExtraConfig: []types.BaseOptionValue{
				// A template that was made from one of our own VMs: clones must not pass for that VM.
				&types.OptionValue{Key: "virtualstack.vmId", Value: "018f0000-0000-7000-8000-000000000000"},
			},
		}
		if spec.DeviceChange, err = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd); err != nil {
			return err
		}
		task, err := home.CreateVM(ctx, spec, pool, nil)
		if err != nil {
			return err
		}
		info, err := task.WaitForResult(ctx)
		if err != nil {
			return err
		}
		vm := object.NewVirtualMachine(client, info.Result.(types.ManagedObjectReference))
		if err := vm.MarkAsTemplate(ctx); err != nil {
			return err
		}
		model.Map().Put(&source{model.Map().Get(vm.Reference()).(*simulator.VirtualMachine), delay, world})
	}
	return nil
}

// source is a template whose clones behave more as on a real vCenter than the simulator's do.
type source struct {
	*simulator.VirtualMachine
	// How long the next clone takes.
	delay func() time.Duration
	// Held for writing while a clone is put together, and for reading by every call.
	world *sync.RWMutex
}

var addresses, slowTasks atomic.Uint32

// CloneVMTask copies the template's extraConfig, which the simulator forgets, gives the clone an address as VMware Tools
// would report it, and a disk file of its own: the simulator would take the template's, and delete it with the clone.
func (s *source) CloneVMTask(ctx *simulator.Context, req *types.CloneVM_Task) soap.HasFault {
	if req.Spec.Config == nil {
		req.Spec.Config = new(types.VirtualMachineConfigSpec)
	}
	number := addresses.Add(1)
	address := fmt.Sprintf("10.%d.%d.%d", 64+number>>16&63, number>>8&255, number&255)
	extra := append([]types.BaseOptionValue{}, s.Config.ExtraConfig...)
	extra = append(extra, &types.OptionValue{Key: "SET.guest.ipAddress", Value: address})
	req.Spec.Config.ExtraConfig = append(extra, req.Spec.Config.ExtraConfig...)
	for _, change := range req.Spec.Config.DeviceChange {
		if disk, is := change.GetVirtualDeviceConfigSpec().Device.(*types.VirtualDisk); is {
			backing := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo()
			backing.FileName = fmt.Sprintf("[LocalDS_0] %[1]s/%[1]s.vmdk", req.Name)
		}
	}
	return &methods.CloneVM_TaskBody{Res: &types.CloneVM_TaskResponse{Returnval: s.slowly(ctx, req)}}
}

// slowly starts a task that waits, then has the simulator's own task do the work. The simulator could delay that one by
// itself, but holds the source's lock meanwhile, or lets others read a clone half made and now and then dies of it.
func (s *source) slowly(ctx *simulator.Context, req *types.CloneVM_Task) types.ManagedObjectReference {
	task := simulator.CreateTask(s, "cloneVM", nil)
	task.Self = types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("task-clone-%d", slowTasks.Add(1))}
	task.Info.Key, task.Info.Task = task.Self.Value, task.Self
	task.Info.State, task.Info.StartTime = types.TaskInfoStateRunning, types.NewTime(time.Now())
	ctx.Map.Put(task)
	go func() {
		time.Sleep(s.delay())
		s.world.Lock()
		defer s.world.Unlock()
		result, fault := s.clone(ctx, req)
		state := types.TaskInfoStateSuccess
		if fault != nil {
			state = types.TaskInfoStateError
		}
		ctx.Map.AtomicUpdate(ctx, task, []types.PropertyChange{
			{Name: "info.completeTime", Val: time.Now()},
			{Name: "info.state", Val: state},
			{Name: "info.result", Val: result},
			{Name: "info.error", Val: fault},
		})
	}()
	return task.Self
}

func (s *source) clone(ctx *simulator.Context, req *types.CloneVM_Task) (any, any) {
	body := s.VirtualMachine.CloneVMTask(ctx, req).(*methods.CloneVM_TaskBody)
	if body.Fault_ != nil {
		return nil, types.LocalizedMethodFault{Fault: body.Fault_.VimFault().(types.BaseMethodFault)}
	}
	task := ctx.Map.Get(body.Res.Returnval).(*simulator.Task)
	task.Wait()
	if task.Info.Error != nil {
		return nil, *task.Info.Error
	}
	return task.Info.Result, nil
}

// machine is what a test wants to know of a VM.
type machine struct {
	Name         string `json:"name"`
	InstanceUUID string `json:"instance_uuid"`
	Marker       string `json:"marker"`
	CPUs         int32  `json:"cpus"`
	MemoryMiB    int32  `json:"memory_mib"`
	DiskGiB      int64  `json:"disk_gib"`
}

func machines(registry *simulator.Registry) []machine {
	found := []machine{}
	for _, entity := range registry.All("VirtualMachine") {
		vm, plain := entity.(*simulator.VirtualMachine)
		if !plain {
			continue // a source
		}
		m := machine{
			Name: vm.Name, InstanceUUID: vm.Config.InstanceUuid,
			CPUs: vm.Config.Hardware.NumCPU, MemoryMiB: vm.Config.Hardware.MemoryMB,
		}
		for _, option := range vm.Config.ExtraConfig {
			if value := option.GetOptionValue(); value.Key == "virtualstack.vmId" {
				m.Marker, _ = value.Value.(string)
			}
		}
		for _, device := range vm.Config.Hardware.Device {
			if disk, is := device.(*types.VirtualDisk); is {
				m.DiskGiB = disk.CapacityInKB >> 20
			}
		}
		found = append(found, m)
	}
	return found
}
