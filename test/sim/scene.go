package sim

import (
	"context"
	"fmt"
	"io"
	"time"

	"mailcutover/rollback/control"
	"mailcutover/routing"
	"mailcutover/test/sim/redismodel"
)

// scene is a run that goes straight to where one rule matters: its world and what happens
// in it are written down, and only times of the network are drawn. It shows that the rule
// does something by itself, which seeds hit once in many thousands.
type scene struct {
	name      string
	rule      string // of docs/architecture/switch.md
	settled   bool   // the first agency isn't armed at first
	stillness bool   // clocks stand still while a machine is stopped
	play      func(s *stage)
}

// newScene makes the world of a scene: three nodes, two agencies with two mailboxes each.
func newScene(sc *scene, seed uint64, log io.Writer) *Run {
	r := emptyRun(seed, log)
	r.scene, r.clocksRun = sc, !sc.stillness
	for i := range 2 {
		a := r.addAgency(i == 0 && !sc.settled)
		a.addAddress()
		a.addAddress()
	}
	r.build(3)
	return r
}

// stage is what a scene works with. Its methods are called by the goroutine that drives
// the world, without World.mu.
type stage struct{ *Run }

// do does something at this moment.
func (s *stage) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// pass lets time pass.
func (s *stage) pass(d time.Duration) { s.run(d, nil) }

// within lets time pass until something is so. That it doesn't come says that the scene
// isn't what it should be.
func (s *stage) within(d time.Duration, what string, done func() bool) {
	if !s.run(d, done) {
		s.do(func() { s.violated("scene", "%s: not within %s", what, d) })
	}
}

// act lets somebody do something at a node, and waits for it.
func (s *stage) act(m *machine, what string, ag *agency) {
	before := 0
	s.do(func() {
		before = s.done[what]
		s.perform(m, what, ag)
	})
	s.within(10*time.Second, what, func() bool { return s.done[what] > before })
}

// people lets somebody do something at a node with its control, and waits for it.
func (s *stage) people(m *machine, what string, f func(ctx context.Context, l *life, id control.Act) error) {
	ended := false
	s.do(func() {
		l := m.life
		s.acts++
		id := control.Act{ID: fmt.Sprintf("act-%d", s.acts), Who: "anna and bert", Reason: "sim"}
		s.ops++
		m.ends.Go(func() {
			ctx, cancel := context.WithTimeout(l.ctx, 15*time.Second)
			defer cancel()
			err := f(ctx, l, id)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ops--
			ended = true
			s.note("people at %s: %s: %v", m.name, what, err)
			if err == nil {
				s.Run.done["people: "+what]++
			} else {
				s.violated("scene", "%s: %v", what, err)
			}
		})
	})
	s.within(20*time.Second, what, func() bool { return ended })
}

// begins begins a switch of an agency at a node.
func (s *stage) begins(m *machine, ag *agency) (sw *switching) {
	s.do(func() { sw = s.operateAt(m, ag, false, 0) })
	return sw
}

// arms arms an agency at a node and begins to switch it, without waiting for the others to
// know of the arming.
func (s *stage) arms(m *machine, ag *agency) *switching {
	s.do(func() { s.perform(m, "arm", ag) })
	s.within(time.Second, "arming", func() bool {
		rec, _ := m.life.replica.State().Agency(ag.id)
		return rec.Tightness == routing.Armed
	})
	return s.begins(m, ag)
}

// switches switches an agency at a node, and waits for its success.
func (s *stage) switches(m *machine, ag *agency) {
	sw := s.begins(m, ag)
	s.within(20*time.Second, "switch", sw.done)
}

// mail brings a message for a mailbox to a node first.
func (s *stage) mail(m *machine, ag *agency, box int) {
	s.do(func() {
		s.messages++
		s.senders.send(&message{id: fmt.Sprintf("s%d-%d", s.Seed, s.messages), rcpts: []string{ag.addresses[box]}, first: m})
	})
}

// hired enters another mailbox of an agency at a node, and waits until that is told.
func (s *stage) hired(m *machine, ag *agency) (c *newcomer) {
	s.do(func() { c = s.hires(m, ag) })
	s.within(5*time.Second, "entered", func() bool { return c.told })
	return c
}

// writes brings a message for a newcomer to a node first.
func (s *stage) writes(m *machine, c *newcomer) {
	s.do(func() {
		s.messages++
		s.senders.send(&message{id: fmt.Sprintf("s%d-%d", s.Seed, s.messages), rcpts: []string{c.address}, first: m})
	})
}

// dot brings a message to a node, and waits until its dot is at a platform, which works at
// it for so long.
func (s *stage) dot(m *machine, ag *agency, p *platform, work time.Duration) {
	before, intents := 0, 0
	s.do(func() { before, intents, p.exactly = p.dots, len(s.oracle.sent[m.name]), work })
	s.mail(m, ag, 0)
	s.within(2*time.Second, "dot of "+m.name, func() bool { return p.dots > before && len(s.oracle.sent[m.name]) > intents })
}

// cut cuts a node off from Redis.
func (s *stage) cut(m *machine) {
	s.do(func() {
		s.fault("node is cut off from Redis")
		m.redis.outSilent, m.redis.inSilent = true, true
	})
}

// joins ends that.
func (s *stage) joins(m *machine) { s.do(m.redis.heal) }

// stops stops a node's machine; what it returns lets it go on.
func (s *stage) stops(m *machine) (resume func()) {
	since := time.Now()
	s.do(func() {
		s.fault("node is stopped for a while")
		m.pause()
	})
	return func() {
		s.do(func() {
			if !s.clocksRun {
				m.stopped.Add(int64(time.Since(since)))
			}
			m.resume()
		})
	}
}

// goesBack puts a backup into the place of the table. What nodes learned since is lost.
func (s *stage) goesBack(backup redismodel.Snapshot) {
	s.do(func() {
		s.fault("an old backup is restored")
		for _, server := range s.servers {
			if !server.Down() {
				server.Stop()
			}
			server.Restore(backup)
		}
	})
	s.pass(100 * time.Millisecond)
	s.do(func() {
		for _, server := range s.servers {
			server.Start()
		}
		for _, server := range s.servers[1:] {
			s.attach(s.servers[0], server)
		}
	})
}

// promotes ends the primary, and makes another server the primary.
func (s *stage) promotes(next int) {
	s.do(func() {
		s.fault("failover that loses writes")
		s.servers[s.primary()].Stop()
	})
	s.pass(50 * time.Millisecond)
	s.do(func() {
		s.servers[next].Promote()
		s.chief = next
		for _, m := range s.machines {
			m.view = next
		}
		for i, server := range s.servers {
			if i != next && !server.Down() {
				s.attach(s.servers[next], server)
			}
		}
	})
}

// bootstrap fills an emptied table from the copy of a node.
func (s *stage) bootstrap(m *machine) {
	s.people(m, "bootstrap", func(ctx context.Context, l *life, id control.Act) error {
		f, err := l.control.Foundation()
		if err == nil {
			_, err = l.control.Bootstrap(ctx, id, f.Digest)
		}
		return err
	})
}
