package sim

import (
	"slices"
	"syscall"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/test/sim/redismodel"
)

// fault is a kind of trouble. It ends by itself, or when the run heals.
type fault struct {
	kind string
	do   func(r *Run)
}

func (r *Run) machine() *machine { return r.machines[r.rng.IntN(len(r.machines))] }

func (r *Run) platform() *platform { return r.platforms[r.rng.IntN(len(r.platforms))] }

// faults are all kinds.
var faults = []fault{
	{"node is stopped for a while", func(r *Run) {
		m := r.machine()
		if m.life == nil {
			return
		}
		r.fault("node is stopped for a while")
		h, since := m.host, time.Now()
		if h.paused != nil {
			return
		}
		h.pause()
		r.after(r.between(50*time.Millisecond, 12*time.Second), m.name+" goes on", func() {
			if h.paused != nil && !r.clocksRun {
				m.stopped.Add(int64(time.Since(since)))
			}
			h.resume()
		})
	}},
	{"node is cut off from Redis", func(r *Run) { r.silence("node is cut off from Redis", r.machine().redis, true, true) }},
	{"node is cut off from a platform", func(r *Run) {
		r.silence("node is cut off from a platform", r.machine().platforms[r.platform().name], true, true)
	}},
	{"a platform's answers don't arrive", func(r *Run) {
		r.silence("a platform's answers don't arrive", r.machine().platforms[r.platform().name], false, true)
	}},
	{"Redis' answers don't arrive", func(r *Run) { r.silence("Redis' answers don't arrive", r.machine().redis, false, true) }},
	{"what goes to a platform is delayed", func(r *Run) {
		r.silence("what goes to a platform is delayed", r.machine().platforms[r.platform().name], true, false)
	}},
	{"connections are reset", func(r *Run) {
		r.fault("connections are reset")
		for _, c := range r.machine().host.conns {
			if !c.ended && r.chance(0.7) {
				c.hangUp(true)
				c.peer.ended(c)
			}
		}
	}},
	{"node is killed", func(r *Run) { r.killed("node is killed", memdisk.LoseNothing) }},
	{"machine loses power", func(r *Run) {
		all := memdisk.Losses()
		loss := all[r.rng.IntN(len(all))]
		if loss == memdisk.LoseNothing {
			loss = memdisk.LoseAll
		}
		r.killed("machine loses power", loss)
	}},
	{"node is killed at a write to its disk", func(r *Run) {
		m := r.machine()
		if m.life == nil {
			return
		}
		r.fault("node is killed at a write to its disk")
		m.disk.CrashBefore(1 + r.rng.IntN(30))
		m.watchDisk()
	}},
	{"failover without loss", func(r *Run) { r.failover("failover without loss", 0) }},
	{"failover that loses writes", func(r *Run) {
		r.failover("failover that loses writes", r.evenly(100*time.Millisecond, 1500*time.Millisecond))
	}},
	{"split brain", (*Run).splitBrain},
	{"Redis restarts", func(r *Run) {
		r.fault("Redis restarts")
		s := r.servers[r.primary()]
		s.Stop()
		r.after(r.between(100*time.Millisecond, 3*time.Second), s.Name()+" is back", func() {
			if s.Down() {
				s.Start()
				r.reattach()
			}
		})
	}},
	{"Redis hangs", func(r *Run) {
		r.fault("Redis hangs")
		s := r.servers[r.primary()]
		s.Hang()
		r.after(r.between(100*time.Millisecond, 6*time.Second), s.Name()+" goes on", s.Resume)
	}},
	{"replicas of Redis are gone", func(r *Run) {
		r.fault("replicas of Redis are gone")
		for _, l := range r.links {
			if r.chance(0.7) {
				l.Cut()
			}
		}
		r.after(r.evenly(500*time.Millisecond, 6*time.Second), "replicas are back", r.mend)
	}},
	{"Redis' clock jumps", func(r *Run) {
		r.fault("Redis' clock jumps")
		for _, s := range r.servers {
			if r.chance(0.6) {
				s.Jump(r.evenly(-time.Hour, time.Hour))
			}
		}
	}},
	{"a node's clock jumps", func(r *Run) {
		r.fault("a node's clock jumps")
		r.machine().jump.Add(int64(r.evenly(-time.Hour, time.Hour)))
	}},
	{"node is killed while a platform works at its mail, and a switch follows", func(r *Run) {
		m := r.machine()
		if m.life == nil {
			return
		}
		for _, p := range r.platforms {
			p.slow = 3 * time.Second
		}
		loss := memdisk.LoseNothing
		if r.chance(0.4) {
			loss = memdisk.LoseAll
		}
		r.after(r.evenly(300*time.Millisecond, 2*time.Second), "", func() {
			if m.life == nil || r.quiet {
				return
			}
			r.fault("node is killed while a platform works at its mail, and a switch follows")
			if loss != memdisk.LoseNothing {
				r.oracle.loses(m.name)
			}
			m.kill(loss)
			r.after(50*time.Millisecond, "", func() {
				if m.life == nil {
					m.start()
				}
			})
			r.after(r.evenly(0, 600*time.Millisecond), "", func() { r.operate(r.agencies[0], false) })
		})
	}},
	{"disk is lost", func(r *Run) {
		m := r.machine()
		if m.life == nil {
			return
		}
		r.fault("disk is lost")
		r.lostDisk[m.name] = true
		r.oracle.forget(m.name)
		m.kill(memdisk.LoseNothing)
		m.disk = newDisk()
		m.boots++
		r.restart(m)
	}},
	{"an old backup is restored", func(r *Run) {
		p := r.primary()
		backup := r.servers[p].Snapshot()
		r.after(r.evenly(500*time.Millisecond, 6*time.Second), "", func() {
			if r.quiet {
				return
			}
			r.fault("an old backup is restored")
			r.lossy = true
			for _, s := range r.servers {
				if !s.Down() {
					s.Stop()
				}
				s.Restore(backup)
			}
			r.worse()
			r.chief = p
			for _, m := range r.machines {
				m.view = p
			}
			r.after(r.evenly(100*time.Millisecond, time.Second), "", func() {
				if r.quiet {
					return // they run, as replicas of whom Sentinel has chosen
				}
				for _, s := range r.servers {
					if s.Down() {
						s.Start()
					}
				}
				for i, s := range r.servers {
					if i != p {
						r.attach(r.servers[p], s)
					}
				}
			})
		})
	}},
	{"Redis is emptied", func(r *Run) {
		r.fault("Redis is emptied")
		r.emptied, r.lossy = true, true
		r.servers[r.primary()].Empty()
	}},
	{"node stops orderly", func(r *Run) {
		if m := r.machine(); m.life != nil && m.listener != nil {
			r.fault("node stops orderly")
			m.stop()
		}
	}},
	{"fsync fails", func(r *Run) { r.sicken(noSync, syscall.EIO, memdisk.OpSync, memdisk.OpSyncDir) }},
	{"disk is full", func(r *Run) { r.sicken(noRoom, syscall.ENOSPC, memdisk.OpWrite, memdisk.OpCreate, memdisk.OpMakeDir) }},
	{"node is dead, and people attest and evict it", (*Run).buried},
	{"two live processes of one name", (*Run).doubled},
	{"platform is slow, drops and refuses", func(r *Run) {
		p := r.platform()
		p.slow, p.drop, p.refuse, p.putOff = r.between(0, 3*time.Second), 0.2*r.rng.Float64(), 0.2*r.rng.Float64(), 0.2*r.rng.Float64()
	}},
	{"platform is down", func(r *Run) {
		r.fault("platform is down")
		p := r.platform()
		p.down = true
		r.after(r.between(100*time.Millisecond, 5*time.Second), p.name+" is up", func() { p.down = false })
	}},
}

// kinds are all kinds of faults that a run counts, and what else has to come about.
func kinds() []string {
	all := []string{
		"late segment of a killed process", "node is killed while the table loses something", "platform is slow", "platform answers 451 to the dot", "platform puts a mailbox off",
		"platform takes a message and is gone", "platform is gone before it takes a message",
	}
	for _, f := range folders {
		if f.what != "journal" { // that is written too seldom for each 2,000 seeds
			all = append(all, noSync+f.what, noRoom+f.what)
		}
	}
	all = append(all, "hook fails", "undoing a hook fails")
	for _, what := range []string{"remap done", "people: bootstrap", "lease given up", "people: attest and evict", "people: attest that an instance is gone", "login is cut", "login ends, and was suspended"} {
		all = append(all, "done: "+what)
	}
	for _, f := range faults {
		// Some are counted one by one.
		if !slices.Contains([]string{"platform is slow, drops and refuses", "fsync fails", "disk is full"}, f.kind) {
			all = append(all, f.kind)
		}
	}
	return all
}

// silence makes a link lose what is sent, until TCP brings it again.
func (r *Run) silence(kind string, l *link, out, in bool) {
	r.fault(kind)
	l.outSilent, l.inSilent = l.outSilent || out, l.inSilent || in
	r.after(r.between(50*time.Millisecond, 10*time.Second), "end of: "+kind, l.heal)
}

// killed ends a node's process, and starts the next one.
func (r *Run) killed(kind string, loss memdisk.Loss) {
	m := r.machine()
	if m.life == nil {
		return
	}
	r.fault(kind)
	if loss != memdisk.LoseNothing {
		r.oracle.loses(m.name)
	}
	m.kill(loss)
	r.restart(m)
}

func (r *Run) restart(m *machine) {
	r.after(r.between(50*time.Millisecond, 5*time.Second), "", func() {
		if m.life == nil {
			m.start()
		}
	})
}

// worse kills nodes at the moment at which the table loses something: then only what they
// have on their disks tells of it.
func (r *Run) worse() {
	if r.chance(0.5) {
		return
	}
	for _, m := range r.machines {
		if m.life == nil || r.chance(0.3) {
			continue
		}
		r.fault("node is killed while the table loses something")
		loss := memdisk.LoseNothing
		if r.chance(0.5) {
			loss = memdisk.LoseAll
			r.oracle.loses(m.name)
		}
		m.kill(loss)
		r.restart(m)
	}
}

// watchDisk kills the process when its disk has stopped at a write, also if it is one that was
// started in an orderly way on the same disk meanwhile.
func (m *machine) watchDisk() {
	disk := m.disk
	var look func()
	look = func() {
		switch {
		case m.disk != disk:
		case !disk.Crashed():
			m.w.after(200*time.Microsecond, "", look)
		case m.life == nil: // at the last write of a process that has ended; the next one is to come
			m.disk = disk.Restart(memdisk.LoseNothing)
		default:
			m.kill(memdisk.LoseNothing)
			m.run.restart(m)
		}
	}
	look()
}

// failover makes a replica the primary. If behind is positive, replicas got nothing for so
// long before.
func (r *Run) failover(kind string, behind time.Duration) {
	old := r.primary()
	cut := append([]*redismodel.Link(nil), r.links...)
	next := (old + 1 + r.rng.IntN(len(r.servers)-1)) % len(r.servers)
	if r.servers[next].Primary() || r.servers[next].Down() || r.servers[old].Down() {
		return
	}
	r.fault(kind)
	if behind > 0 {
		r.lossy = true
		for _, l := range cut {
			l.Cut()
		}
	}
	gone := func() {
		if r.servers[old].Down() || r.servers[next].Primary() {
			return
		}
		r.servers[old].Stop()
		if behind > 0 {
			r.worse()
		}
		r.after(r.evenly(100*time.Millisecond, 2*time.Second), "", func() {
			if r.servers[next].Down() || r.servers[next].Primary() || !r.servers[old].Down() {
				return
			}
			r.note("%s is promoted", r.servers[next].Name())
			r.servers[next].Promote()
			r.chief = next
			r.look(next)
			r.reattach()
			r.after(r.evenly(500*time.Millisecond, 4*time.Second), "", func() {
				if r.servers[old].Down() {
					r.servers[old].Start()
					r.reattach()
				}
			})
		})
	}
	r.after(behind+5*time.Millisecond, "", gone)
}

// look tells all nodes who the primary is.
func (r *Run) look(primary int) {
	for _, m := range r.machines {
		r.after(r.evenly(0, 300*time.Millisecond), "", func() { m.view = primary })
	}
}

// splitBrain promotes a replica while the old primary goes on, and some nodes stay with it.
func (r *Run) splitBrain() {
	old := r.primary()
	next := (old + 1 + r.rng.IntN(len(r.servers)-1)) % len(r.servers)
	if r.servers[next].Primary() || r.servers[next].Down() || r.servers[old].Down() {
		return
	}
	r.fault("split brain")
	r.lossy = true
	for _, l := range r.links {
		l.Cut()
	}
	stay := r.machine()
	r.after(r.evenly(200*time.Millisecond, 3*time.Second), "", func() {
		if r.quiet || r.servers[next].Primary() || r.servers[next].Down() {
			return
		}
		r.note("%s is promoted beside %s", r.servers[next].Name(), r.servers[old].Name())
		r.servers[next].Promote()
		r.chief = next
		for i, s := range r.servers {
			if i != old && i != next && !s.Down() {
				r.attach(r.servers[next], s)
			}
		}
		for _, m := range r.machines {
			if m != stay {
				m.view = next
				for _, c := range m.host.conns {
					if to, is := c.peer.(*toServer); is && to.server == r.servers[old] && !c.over {
						c.hangUp(true)
						to.ended(c)
					}
				}
			}
		}
		r.after(r.evenly(500*time.Millisecond, 5*time.Second), "", func() {
			if r.quiet {
				return // healed meanwhile, perhaps with another primary
			}
			r.note("%s becomes a replica", r.servers[old].Name())
			stay.view = next
			if !r.servers[old].Down() && r.servers[old].Primary() {
				r.servers[old].Stop()
				r.servers[old].Start()
				r.reattach()
			}
		})
	})
}

// reattach makes all that run replicas of the one that Sentinel takes for the primary: the
// one that the first node looks at, or will.
func (r *Run) reattach() {
	p := r.sentinel()
	for i, s := range r.servers {
		if i != p && !s.Down() && s.Primary() {
			r.attach(r.servers[p], s)
		}
		if i != p && !s.Down() && !s.Primary() {
			r.attach(r.servers[p], s)
		}
	}
}

// sentinel returns the primary that was promoted last, or another one if that is down.
func (r *Run) sentinel() int {
	if s := r.servers[r.chief]; s.Primary() && !s.Down() {
		return r.chief
	}
	return r.primary()
}

// mend takes up all links again.
func (r *Run) mend() {
	for _, l := range r.links {
		l.Mend()
	}
}

// heal ends all faults.
func (r *Run) heal() {
	r.note("healed")
	r.quiet = true
	for _, s := range r.servers {
		s.Resume()
		if s.Down() {
			s.Start()
		}
	}
	r.reattach()
	r.mend()
	p := r.sentinel()
	for _, m := range r.machines {
		if m.twin { // people find out, and end it
			m.kill(memdisk.LoseNothing)
		}
	}
	r.machines = slices.DeleteFunc(r.machines, func(m *machine) bool { return m.twin })
	for _, m := range r.machines {
		m.view = p
		for _, c := range m.host.conns {
			if to, is := c.peer.(*toServer); is && to.server != r.servers[p] && !c.over {
				c.hangUp(true)
				to.ended(c)
			}
		}
		m.redis.heal()
		m.front.heal()
		for _, p := range r.platforms {
			m.platforms[p.name].heal()
		}
		if m.life == nil {
			m.start()
		}
	}
	for _, p := range r.platforms {
		p.down, p.slow, p.drop, p.refuse, p.putOff = false, 0, 0, 0, 0
	}
}
