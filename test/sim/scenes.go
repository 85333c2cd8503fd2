package sim

import (
	"context"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/rollback/control"
	"mailcutover/test/sim/redismodel"
)

// scenes are the runs that are written down. Names are cited by package mutants and by
// docs/architecture/mutants.md.
var scenes = []scene{
	{name: "power fails on all nodes, and an old backup comes back", rule: "node rule 1", play: func(s *stage) {
		ag := s.agencies[0]
		backup := s.backup()
		s.switches(s.machines[0], ag)
		s.do(func() {
			for _, m := range s.machines {
				s.oracle.loses(m.name)
				m.kill(memdisk.LoseAll)
			}
		})
		s.goesBack(backup)
		s.do(func() {
			for _, m := range s.machines {
				m.start()
			}
		})
		s.pass(2 * time.Second)
		s.mail(s.machines[0], ag, 0)
		s.pass(4 * time.Second)
	}},
	{name: "a settled node is cut off, and the agency moves without it", rule: "node rule 2, fence", settled: true, play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.cut(apart)
		sw := s.arms(s.machines[1], ag)
		s.pass(5200 * time.Millisecond) // its lease is about to end
		s.dot(apart, ag, s.platforms[0], 3*time.Second)
		s.within(20*time.Second, "switch", sw.done)
		s.mail(apart, ag, 1)
		s.pass(2 * time.Second)
	}},
	{name: "a node whose clock stands still is cut off and stopped", rule: "fence", settled: true, stillness: true, play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.cut(apart)
		resume := s.stops(apart)
		s.arms(s.machines[1], ag)
		s.pass(14 * time.Second) // it began, if the long lease counts
		resume()
		s.mail(apart, ag, 0)
		s.pass(time.Second)
	}},
	{name: "a node is cut off with a dot under way", rule: "fence", play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.dot(apart, ag, s.platforms[0], 3500*time.Millisecond)
		s.cut(apart)
		sw := s.begins(s.machines[1], ag)
		s.within(20*time.Second, "switch", sw.done)
		s.pass(4 * time.Second)
	}},
	{name: "a node whose clock stands still goes on after the switch", rule: "node rule 3", stillness: true, play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.cut(apart)
		resume := s.stops(apart)
		s.switches(s.machines[1], ag)
		resume()
		s.mail(apart, ag, 0)
		s.pass(time.Second)
	}},
	{name: "a node goes on after the switch and has its lease before its copy", rule: "node rule 3, check", stillness: true, play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		resume := s.stops(apart)
		s.switches(s.machines[1], ag)
		s.do(func() { // what it has open says nothing any more
			silent := s.newLink()
			silent.outSilent, silent.inSilent = true, true
			for _, c := range apart.conns {
				if _, is := c.peer.(*toServer); is {
					c.link = silent
				}
			}
		})
		resume()
		for range 10 {
			s.pass(100 * time.Millisecond)
			s.mail(apart, ag, 0)
		}
		s.pass(time.Second)
	}},
	{name: "a node is stopped before it reads a platform's 250", rule: "node rule 4", play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.dot(apart, ag, s.platforms[0], time.Second)
		resume := s.stops(apart)
		s.do(func() { apart.eager = true })
		s.switches(s.machines[1], ag)
		resume()
		s.pass(time.Second)
	}},
	{name: "a switch begins with a dot under way", rule: "node rule 5", play: func(s *stage) {
		ag := s.agencies[0]
		s.dot(s.machines[0], ag, s.platforms[0], 2*time.Second)
		s.switches(s.machines[1], ag)
		s.pass(3 * time.Second)
	}},
	{name: "a switch begins with a message in doubt", rule: "node rule 5", play: func(s *stage) {
		ag := s.agencies[0]
		s.dot(s.machines[0], ag, s.platforms[0], 3*time.Second)
		s.do(func() {
			for _, c := range s.machines[0].conns {
				if in, is := c.peer.(*inbound); is && in.p == s.platforms[0] {
					c.reset(errRefused)
				}
			}
		})
		s.pass(50 * time.Millisecond)
		s.switches(s.machines[1], ag)
		s.pass(4 * time.Second)
	}},
	{name: "a switch begins with sessions open", rule: "node rule 6", play: func(s *stage) {
		ag := s.agencies[0]
		s.do(func() {
			for _, m := range s.machines {
				for n := range 3 {
					s.login(m, ag, 0, time.Now().Add(10*time.Second), n == 0)
				}
			}
		})
		s.pass(700 * time.Millisecond)
		s.switches(s.machines[1], ag)
		s.pass(time.Second)
		s.switches(s.machines[1], ag)
		s.pass(2 * time.Second)
	}},
	{name: "a session of a node that is cut off goes on", rule: "node rule 6", settled: true, play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.cut(apart)
		sw := s.arms(s.machines[1], ag)
		s.pass(5300 * time.Millisecond)
		s.do(func() { // a platform that ends no session, which the fence is told it does
			s.platforms[0].limit = time.Minute
			s.login(apart, ag, 0, time.Now().Add(20*time.Second), false)
		})
		s.within(20*time.Second, "switch", sw.done)
		s.pass(3 * time.Second)
	}},
	{name: "a node is killed with a dot under way", rule: "node rule 8", play: func(s *stage) {
		s.dies(memdisk.LoseNothing, false)
	}},
	{name: "a machine loses power with a dot under way", rule: "node rule 8", play: func(s *stage) {
		s.dies(memdisk.LoseAll, false)
	}},
	{name: "a disk is lost with a dot under way", rule: "node rule 9, instances", play: func(s *stage) {
		s.dies(memdisk.LoseNothing, true)
	}},
	{name: "two live processes of one name", rule: "node rule 9, instances", play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.dot(apart, ag, s.platforms[0], 3500*time.Millisecond)
		s.cut(apart)
		s.do(func() {
			s.fault("two live processes of one name")
			s.addMachine("mx1again", apart.id).start()
		})
		s.pass(300 * time.Millisecond)
		s.switches(s.machines[1], ag)
		s.joins(apart)
		s.pass(3 * time.Second)
		s.do(func() { s.machines[3].kill(memdisk.LoseNothing); s.machines = s.machines[:3] })
	}},
	{name: "a settled node is cut off, and another process takes its name", rule: "node rule 9, instances", settled: true, play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.cut(apart)
		s.do(func() {
			s.fault("two live processes of one name")
			s.addMachine("mx1again", apart.id).start()
		})
		sw := s.arms(s.machines[1], ag)
		s.pass(5200 * time.Millisecond) // its lease is about to end
		s.dot(apart, ag, s.platforms[0], 3*time.Second)
		s.within(20*time.Second, "switch", sw.done)
		s.pass(3 * time.Second)
		s.do(func() { // people throw the old one away
			s.lostDisk[apart.name] = true
			apart.kill(memdisk.LoseNothing)
			s.machines = s.machines[1:]
		})
	}},
	{name: "who knows less serves alone after an old backup", rule: "node rule 9, rejoin", play: func(s *stage) {
		s.alone(func(s *stage, ag *agency) { s.switches(s.machines[1], ag) })
	}},
	{name: "who knows less serves a settled agency alone after an old backup", rule: "node rule 9, rejoin", settled: true, play: func(s *stage) {
		s.alone(func(s *stage, ag *agency) {
			s.act(s.machines[1], "arm", ag)
			s.switches(s.machines[1], ag)
			s.act(s.machines[1], "settle", ag)
		})
	}},
	{name: "who knows less hears of it after an old backup", rule: "node rule 9, what the table lost", play: func(s *stage) {
		ag, late := s.agencies[0], s.machines[0]
		backup := s.backup()
		s.do(func() { late.kill(memdisk.LoseNothing) })
		s.switches(s.machines[1], ag)
		s.goesBack(backup)
		s.do(late.start)
		s.pass(3 * time.Second)
		s.mail(late, ag, 0)
		s.pass(2 * time.Second)
	}},
	{name: "a node lags behind a name", rule: "names", play: func(s *stage) {
		ag := s.agencies[0]
		s.cut(s.machines[1])
		c := s.hired(s.machines[0], ag)
		s.writes(s.machines[1], c)
		s.pass(time.Second)
		s.joins(s.machines[1])
		s.pass(time.Second)
	}},
	{name: "a name is lost two failovers ago, and who has it comes last", rule: "names", play: func(s *stage) {
		ag, knows := s.agencies[0], s.machines[0]
		backup := s.backup()
		s.cut(s.machines[1])
		s.cut(s.machines[2])
		c := s.hired(knows, ag)
		s.cut(knows)
		s.goesBack(backup)
		s.joins(s.machines[1])
		s.joins(s.machines[2])
		s.pass(2 * time.Second) // they rejoin, in another term
		for _, other := range s.agencies {
			s.act(s.machines[1], "lock", other) // the table goes on, past where it was when the name came
		}
		s.writes(s.machines[1], c)
		s.pass(time.Second)
		s.goesBack(s.backup())
		s.pass(2 * time.Second) // in the next one
		s.joins(knows)
		for range 5 {
			s.pass(time.Second)
			s.writes(s.machines[2], c)
		}
	}},
	{name: "a name is lost, and who had it is gone", rule: "names", play: func(s *stage) {
		ag, knows := s.agencies[0], s.machines[0]
		backup := s.backup()
		s.cut(s.machines[1])
		s.cut(s.machines[2])
		c := s.hired(knows, ag)
		s.do(func() {
			s.fault("disk is lost")
			s.lostDisk[knows.name] = true
			s.oracle.forget(knows.name)
			knows.kill(memdisk.LoseNothing)
			knows.disk = newDisk()
			knows.boots++
		})
		s.goesBack(backup)
		s.joins(s.machines[1])
		s.joins(s.machines[2])
		s.pass(2 * time.Second)
		s.people(s.machines[1], "attest", func(ctx context.Context, l *life, id control.Act) error {
			m, _ := l.replica.State().Member(knows.id)
			return l.control.Attest(ctx, id, knows.id, m.Instance)
		})
		for range 5 {
			s.pass(time.Second)
			s.writes(s.machines[2], c)
		}
		s.do(knows.start)
		s.pass(5 * time.Second)
	}},
	{name: "a success is told, and all that knew of it is lost", rule: "confirm", play: func(s *stage) {
		ag := s.agencies[0]
		s.pass(500 * time.Millisecond)
		s.do(func() {
			for _, l := range s.links {
				l.Cut()
			}
		})
		sw := s.begins(s.machines[0], ag)
		s.pass(1200 * time.Millisecond)
		told := sw.done()
		s.do(func() {
			for _, m := range s.machines {
				s.fault("disk is lost")
				s.lostDisk[m.name] = true
				s.oracle.forget(m.name)
				m.kill(memdisk.LoseNothing)
				m.disk = newDisk()
				m.boots++
			}
		})
		s.promotes(1)
		s.do(func() {
			for _, m := range s.machines {
				m.start()
			}
		})
		s.pass(16 * time.Second)
		s.mail(s.machines[0], ag, 0)
		s.pass(3 * time.Second)
		_ = told
	}},
	{name: "an agency is locked on a node that is cut off, and power fails there", rule: "node rule 10", play: func(s *stage) {
		ag, m := s.agencies[0], s.machines[0]
		s.cut(m)
		s.act(m, "lock on a node", ag)
		s.mail(m, ag, 0)
		s.pass(time.Second)
		s.do(func() {
			s.oracle.loses(m.name)
			m.kill(memdisk.LoseAll)
			m.start()
		})
		s.joins(m)
		for range 20 {
			s.mail(m, ag, 1)
			s.pass(50 * time.Millisecond)
		}
		s.pass(time.Second)
	}},
	{name: "a silent node is evicted and comes back", rule: "fence", settled: true, play: func(s *stage) {
		ag, apart := s.agencies[0], s.machines[0]
		s.cut(apart)
		s.act(s.machines[1], "arm", ag)
		s.people(s.machines[1], "evict", func(ctx context.Context, l *life, id control.Act) error {
			return l.control.Evict(ctx, id, apart.id, connectionLimit)
		})
		s.switches(s.machines[1], ag)
		s.mail(apart, ag, 0)
		s.pass(time.Second)
		s.joins(apart)
		s.pass(time.Second)
		s.mail(apart, ag, 1)
		s.pass(time.Second)
	}},
	{name: "a node stops with a dot under way", rule: "fence", play: func(s *stage) {
		ag := s.agencies[0]
		s.dot(s.machines[0], ag, s.platforms[0], 2500*time.Millisecond)
		s.do(s.machines[0].stop)
		s.switches(s.machines[1], ag)
		s.pass(3 * time.Second)
	}},
	{name: "Redis is emptied and filled from a copy", rule: "node rule 10, bootstrap", play: func(s *stage) {
		ag := s.agencies[0]
		s.switches(s.machines[0], ag)
		s.do(func() {
			s.fault("Redis is emptied")
			s.servers[s.primary()].Empty()
		})
		s.mail(s.machines[0], ag, 0)
		s.pass(time.Second)
		s.bootstrap(s.machines[1])
		s.pass(2 * time.Second)
		s.mail(s.machines[0], ag, 1)
		s.pass(time.Second)
	}},
	{name: "Redis is emptied and filled from a copy that knows less", rule: "node rule 10, bootstrap", play: func(s *stage) {
		ag, late := s.agencies[0], s.machines[0]
		s.cut(late)
		s.switches(s.machines[1], ag)
		s.do(func() {
			s.fault("Redis is emptied")
			s.servers[s.primary()].Empty()
		})
		s.joins(late)
		s.pass(500 * time.Millisecond)
		s.bootstrap(late)
		s.pass(5 * time.Second)
		s.mail(late, ag, 0)
		s.pass(time.Second)
	}},
}

// backup is what a backup of the table has now.
func (s *stage) backup() (b redismodel.Snapshot) {
	s.do(func() { b = s.servers[s.primary()].Snapshot() })
	return b
}

// dies kills a node while a platform works at its mail. The next process begins at once,
// and a switch.
func (s *stage) dies(loss memdisk.Loss, empty bool) {
	ag, m := s.agencies[0], s.machines[0]
	s.dot(m, ag, s.platforms[0], 3500*time.Millisecond)
	s.do(func() {
		s.fault("node is killed while a platform works at its mail, and a switch follows")
		if loss != memdisk.LoseNothing {
			s.oracle.loses(m.name)
		}
		if empty {
			s.lostDisk[m.name] = true
			s.oracle.forget(m.name)
		}
		m.kill(loss)
		if empty {
			m.disk = newDisk()
			m.boots++
		}
		m.start()
	})
	s.pass(200 * time.Millisecond)
	s.switches(s.machines[1], ag)
	s.pass(4 * time.Second)
}

// alone lets something happen without a node, puts the table back to before it, and lets
// that node come back while the others are cut off.
func (s *stage) alone(happen func(s *stage, ag *agency)) {
	ag, late := s.agencies[0], s.machines[0]
	backup := s.backup()
	s.do(func() { late.kill(memdisk.LoseNothing) })
	if s.scene.settled { // nobody waits longer for the fence of a lease that was given up
		s.pass(11 * time.Second)
	}
	happen(s, ag)
	s.cut(s.machines[1])
	s.cut(s.machines[2])
	s.goesBack(backup)
	s.do(late.start)
	for range 20 {
		s.pass(200 * time.Millisecond)
		s.mail(late, ag, 0)
	}
	s.joins(s.machines[1])
	s.joins(s.machines[2])
}
