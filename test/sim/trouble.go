package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// folders are what lies on a node's disk, by what it is called.
var folders = []struct{ dir, what string }{
	{"/data/replica", "marks"}, {"/data/spool", "spool"}, {"/data/ledger", "ledger"}, {"/data/operations", "journal"}, {"/data", "all"},
}

const (
	noSync = "fsync fails: "
	noRoom = "disk is full: "
)

// sicken makes operations of a node's disk fail for a while.
func (r *Run) sicken(kind string, cause error, ops ...memdisk.Op) {
	m := r.machine()
	if m.life == nil {
		return
	}
	f := folders[r.rng.IntN(len(folders))]
	kind += f.what
	disk, hit := m.disk, new(atomic.Bool)
	r.note("%s: %s", m.name, kind)
	m.sick = true
	disk.Fail(func(op memdisk.Op, path string) error {
		for _, bad := range ops {
			if op == bad && strings.HasPrefix(path, f.dir) {
				hit.Store(true)
				return fmt.Errorf("%s %s: %w", op, path, cause)
			}
		}
		return nil
	})
	r.after(r.between(200*time.Millisecond, 6*time.Second), m.name+"'s disk is well", func() {
		disk.Fail(nil)
		m.sick = m.disk != disk && m.sick
		if hit.Load() {
			r.fault(kind)
		}
	})
}

// buried is a node that dies and doesn't come back before people have attested that and
// evicted it. They do so when nothing of it can arrive any more.
func (r *Run) buried() {
	m := r.machine()
	if m.life == nil || m.life.keeper == nil || r.graves > 0 || m.twin {
		return
	}
	_, instance := m.life.keeper.Node()
	r.fault("node is dead, and people attest and evict it")
	r.graves++
	m.kill(memdisk.LoseNothing)
	r.after(connectionLimit+3*time.Second, "", func() { r.bury(m, instance, 0) })
}

func (r *Run) bury(m *machine, instance routing.InstanceID, tries int) {
	at := r.anyRunning()
	if m.life != nil || at == nil || tries > 3 {
		r.graves--
		return // it was started again
	}
	r.acts++
	act := control.Act{ID: fmt.Sprintf("act-%d", r.acts), Who: "anna and bert", Reason: "sim"}
	r.ops++
	at.ends.Go(func() {
		l := at.life
		ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
		defer cancel()
		err := l.control.Attest(ctx, act, m.id, instance)
		if err == nil || errors.Is(err, control.ErrNothing) {
			err = l.control.Evict(ctx, act, m.id, connectionLimit)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops--
		r.note("people at %s: attest and evict %s: %v", at.name, m.name, err)
		if err == nil {
			r.done["people: attest and evict"]++
		} else if m.life == nil {
			r.after(time.Second, "", func() { r.bury(m, instance, tries+1) })
			return
		}
		r.graves--
	})
}

// anyRunning returns a machine whose node takes what people do; nil: there is none.
func (r *Run) anyRunning() *machine {
	for _, m := range r.machines {
		if m.life != nil && m.life.control != nil && m.host.paused == nil && !m.twin {
			return m
		}
	}
	return nil
}

// doubled starts a process of a node on another disk, while the other one runs.
func (r *Run) doubled() {
	m := r.machine()
	if m.life == nil || m.twin || len(r.machines) > 6 {
		return
	}
	for _, other := range r.machines {
		if other.twin {
			return
		}
	}
	r.fault("two live processes of one name")
	t := r.addMachine(m.name+"twin", m.id)
	t.twin, t.view = true, m.view
	r.lostDisk[t.name] = true // people throw it away
	t.start()
}

// bootstrap fills an emptied table from the copy that knows most. mu is held.
func (r *Run) bootstrap() {
	var at *machine
	var best routing.Position
	for _, m := range r.machines {
		if m.life == nil || m.life.control == nil || m.life.replica == nil {
			continue
		}
		if pos := m.life.replica.State().Position(); at == nil || pos.Term > best.Term || pos.Term == best.Term && pos.Revision > best.Revision {
			at, best = m, pos
		}
	}
	if at == nil {
		return
	}
	l := at.life
	r.acts++
	act := control.Act{ID: fmt.Sprintf("act-%d", r.acts), Who: "anna and bert", Reason: "sim"}
	r.ops++
	at.ends.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
		defer cancel()
		f, err := l.control.Foundation()
		if err == nil {
			_, err = l.control.Bootstrap(ctx, act, f.Digest)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops--
		r.note("people at %s: bootstrap: %v", at.name, err)
		if err == nil {
			r.done["people: bootstrap"]++
		}
		if err == nil || errors.Is(err, table.ErrFounded) {
			r.emptied = false
		}
	})
}

// remap brings another list of the first agency into force: its mailboxes have other
// addresses on the target.
func (r *Run) remap(m *machine) {
	l := m.life
	if l == nil || l.runner == nil {
		return
	}
	ag := r.agencies[0]
	ag.version++
	version := ag.version
	r.ops++
	r.note("remap of %s to version %d is begun on %s", ag.id, version, m.name)
	m.ends.Go(func() {
		op, err := func() (operation.Operation, error) {
			mapping, err := r.moved(l.replica.State(), ag, version)
			if err != nil {
				return operation.Operation{}, err
			}
			if err := l.table.PutMapping(l.ctx, mapping); err != nil {
				return operation.Operation{}, err
			}
			return l.runner.Run(l.ctx, operation.Request{
				Kind: operation.Remap, Agency: ag.id, Who: "anna", Reason: "sim", Deadline: 20 * time.Second,
				Mappings: map[routing.AgencyID]routing.Digest{ag.id: mapping.Digest()},
			})
		}()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops--
		r.note("remap of %s to version %d on %s ends: %s, %v", ag.id, version, m.name, op.Step, err)
		if err == nil && op.Step == operation.StepDone && !l.host.dead {
			r.done["remap done"]++
			r.oracle.remapped(ag.id, version)
		} else {
			r.done["remap aborted, refused, or left"]++
		}
	})
}

// hooks are the steps on both platforms of a run, called by a node.
type hooks struct {
	run *Run
	l   *life
}

// Of implements operation.Hooks.
func (h hooks) Of(kind operation.Kind, ag routing.Agency) []operation.Hook {
	if !h.run.hooked || kind == operation.Remap || ag.ID != h.run.agencies[0].id {
		return nil
	}
	losing, winning := ag.Source, ag.Target
	if kind == operation.Rollback {
		losing, winning = winning, losing
	}
	return []operation.Hook{hook{h, operation.PointClose, losing}, hook{h, operation.PointOpen, winning}}
}

type hook struct {
	hooks
	point    operation.Point
	platform routing.PlatformID
}

func (h hook) Name() string                 { return string(h.point) }
func (h hook) Point() operation.Point       { return h.point }
func (h hook) Platform() routing.PlatformID { return h.platform }
func (h hook) Digest() routing.Digest {
	return routing.Digest{1, byte(len(h.point)), byte(len(h.platform))}
}
func (h hook) Describe() string        { return string(h.point) + " at " + string(h.platform) }
func (h hook) Expected() time.Duration { return time.Second }
func (h hook) Patience() time.Duration { return 3 * time.Second }
func (h hook) External() bool          { return false }
func (h hook) Undoes() bool            { return h.point == operation.PointClose }

// Do implements operation.Hook.
func (h hook) Do(ctx context.Context, _ operation.Call) (string, error) { return h.call(ctx, "hook") }

// Undo implements operation.Hook.
func (h hook) Undo(ctx context.Context, _ operation.Call) (string, error) {
	return h.call(ctx, "undoing a hook")
}

func (h hook) call(ctx context.Context, what string) (string, error) {
	r := h.run
	r.mu.Lock()
	h.l.host.running()
	if h.l.host.dead { // it draws nothing any more
		r.mu.Unlock()
		return "", errors.New("the process is dead")
	}
	work, fails := r.between(time.Millisecond, 1500*time.Millisecond), r.chance(r.hookFails)
	r.done[what]++
	r.mu.Unlock()
	select {
	case <-time.After(work):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if fails {
		r.mu.Lock()
		r.fault(what + " fails")
		r.mu.Unlock()
		return "", errors.New("the platform says no")
	}
	return "fine", nil
}
