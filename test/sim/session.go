package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"mailcutover/node"
	"mailcutover/routing"
)

// A login is a session of a mail client: the node asks its gate as proxy/login does, and
// passes bytes on to a platform while the gate says so. What proxy/login has besides
// (dialogues, TLS, splicing) needs real sockets, and isn't here.

// login opens a session for a mailbox at a node, which lasts until end, unless somebody
// ends it. One of a submission that is cut goes on for a moment, with what it is at.
// mu is held.
func (r *Run) login(m *machine, ag *agency, box int, end time.Time, submission bool) {
	l := m.life
	if l == nil || m.listener == nil {
		return
	}
	m.ends.Go(func() {
		why := r.session(l, ag, routing.Address(ag.addresses[box]), end, submission)
		r.mu.Lock()
		defer r.mu.Unlock()
		if l.host.dead {
			return
		}
		r.done["login "+why]++
		r.note("a login of %s at %s: %s", ag.id, m.name, why)
		if again := r.evenly(200*time.Millisecond, time.Second); time.Now().Add(again).Before(end) {
			r.after(again, "", func() { r.login(r.machine(), ag, box, end, submission) }) // the client comes back
		}
	})
}

// session is one login from the decision to its end. It returns how it ended.
func (r *Run) session(l *life, ag *agency, address routing.Address, end time.Time, submission bool) string {
	d := l.gate.Login(routing.Login(address))
	if !d.Deliver() {
		return "is told to come back"
	}
	cut := make(chan struct{})
	ticket, err := l.gate.Enter(&d, func() { close(cut) })
	if err != nil {
		return "is told to come back"
	}
	defer ticket.End()
	p := r.platformOf(string(d.Platform))
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	nc, err := r.dial(ctx, l.host, l.m.platforms[p.name], p.name+" login", netip.MustParseAddrPort("127.0.0.1:143"), func() (peer, error) {
		if p.down {
			return nil, errRefused
		}
		return &leg{run: r, p: p}, nil
	})
	if err != nil {
		return "finds no platform"
	}
	c := nc.(*conn)
	defer c.cutOff()
	if ticket.Open(l.ctx) != nil {
		return "is told to come back"
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte("LOGIN " + string(ag.id) + "\r\n")); err != nil {
		return "breaks"
	}
	if _, err := c.Read(make([]byte, 100)); err != nil || ticket.Acknowledge() != nil {
		return "breaks"
	}
	lapsed := false
	for time.Now().Before(end) {
		r.mu.Lock()
		if l.host.dead {
			r.mu.Unlock()
			return "dies"
		}
		pause := r.between(5*time.Millisecond, 300*time.Millisecond)
		r.mu.Unlock()
		select {
		case <-cut:
			for last := time.Now().Add(time.Second); submission && time.Now().Before(last) && ticket.Acknowledge() == nil; {
				if _, err := c.Write([]byte("BYTES\r\n")); err != nil {
					return "breaks"
				}
				time.Sleep(50 * time.Millisecond)
			}
			return "is cut"
		case <-l.ctx.Done():
			return "dies"
		case <-time.After(pause):
		}
		err := ticket.Flows()
		if errors.Is(err, node.ErrLapsed) {
			lapsed = true
			err = ticket.Resume(l.ctx)
		}
		switch {
		case errors.Is(err, node.ErrLapsed):
			continue
		case err != nil:
			return "is cut"
		}
		if _, err := c.Write([]byte("BYTES\r\n")); err != nil {
			return "breaks"
		}
	}
	if lapsed {
		return "ends, and was suspended"
	}
	return "ends"
}

func (r *Run) platformOf(name string) *platform {
	for _, p := range r.platforms {
		if p.name == name {
			return p
		}
	}
	return nil
}

// cutOff ends a connection with a reset: what is on a silent way is not sent again.
func (c *conn) cutOff() {
	c.w.mu.Lock()
	c.w.hand(func() {
		if c.link.outSilent {
			c.out.queue = nil
		}
	})
	c.w.mu.Unlock()
	_ = c.Close()
}

// leg is a session's connection at a platform.
type leg struct {
	run  *Run
	p    *platform
	buf  []byte
	id   routing.AgencyID
	gone bool
}

// greet implements greeter.
func (g *leg) greet(c *conn) {
	g.run.after(g.p.limit, "", func() {
		g.gone = true
		c.hangUp(true)
	})
}

// ended implements peer.
func (g *leg) ended(*conn) { g.gone = true }

// receive implements peer.
func (g *leg) receive(c *conn, b []byte) {
	g.buf = append(g.buf, b...)
	for !g.gone {
		line, rest, whole := bytes.Cut(g.buf, []byte("\r\n"))
		if !whole {
			return
		}
		g.buf = rest
		if id, is := strings.CutPrefix(string(line), "LOGIN "); is {
			g.id = routing.AgencyID(id)
			g.run.oracle.session(g.id, g.p.name, "a login")
			c.answer([]byte("OK\r\n"), 0)
			continue
		}
		g.run.oracle.session(g.id, g.p.name, "bytes of a session")
	}
}

// session is something of a login that a platform got (I17). It is held against what is
// written in the table as a delivery is. mu is held.
func (o *oracle) session(id routing.AgencyID, platform, what string) {
	o.sessions++
	if bad := o.moves(id, platform); bad != "" {
		o.w.violated("I17", "%s got %s of agency %s, %s", platform, what, id, bad)
	}
}

// moves notes that a platform serves an agency, and says why it must not. mu is held.
func (o *oracle) moves(id routing.AgencyID, platform string) string {
	if o.shut[id] {
		return "of which all nodes said that it is locked"
	}
	c := o.chain[id]
	if c.current == platform {
		return ""
	}
	for i := c.at + 1; i < len(c.commits); i++ {
		if c.commits[i].platform == platform {
			c.at, c.current = i, platform
			return ""
		}
	}
	return fmt.Sprintf("which is on %s since commit %d of %d", c.current, c.at+1, len(c.commits))
}
