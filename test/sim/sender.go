package sim

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

var errRefused = error(syscall.ECONNREFUSED)

// message is one mail that a sending relay has in custody until it is told 250.
type message struct {
	id    string
	rcpts []string // still to be delivered
	first *machine // that is tried first; nil: any
	tries int
}

// sender is a relay that brings mail, and brings it again after a 4yz, as it must.
type sender struct {
	w     *World
	addr  netip.Addr
	pick  func() *machine // the node to try; nil: none is up
	told  func(id, rcpt, node string, code int)
	names func(id string) // its recipients are named
	lost  func(id string) // the dot was sent, and no answer came
	open  int             // messages not yet taken
	ports uint16
}

// dialogue is one connection of a sender.
type dialogue struct {
	s     *sender
	m     *message
	c     *conn
	node  string
	buf   []byte
	step  int
	asked []string
	taken []string
	timer *event
	done  bool
}

const (
	stepGreeting = iota
	stepHello
	stepMail
	stepRcpt
	stepData
	stepBody
)

// send brings a message, as often as it takes.
func (s *sender) send(m *message) {
	s.open++
	s.try(m)
}

func (s *sender) try(m *message) {
	m.tries++
	n := s.pick()
	if m.tries == 1 && m.first != nil {
		n = m.first
	}
	if n == nil {
		s.again(m)
		return
	}
	d := &dialogue{s: s, m: m, node: n.name}
	s.ports++
	l := n.front
	s.w.after(s.w.between(l.least, l.most), "", func() {
		if l.outSilent || l.inSilent {
			s.again(m)
			return
		}
		if n.listener == nil {
			s.again(m)
			return
		}
		if d.c = n.listener.open(l, d, netip.AddrPortFrom(s.addr, 1024+s.ports%60000)); d.c == nil {
			s.again(m)
			return
		}
		d.wait()
	})
}

// patience is how long a sender waits for any answer. It is longer than what the node
// waits for its platform.
const patience = 30 * time.Second

func (d *dialogue) wait() {
	if d.timer != nil {
		d.timer.off = true
	}
	d.timer = d.s.w.after(patience, "", func() { d.fail() })
}

// again retries later.
func (s *sender) again(m *message) {
	s.w.after(s.w.evenly(300*time.Millisecond, 3*time.Second), "", func() { s.try(m) })
}

// fail ends the connection without an answer.
func (d *dialogue) fail() {
	if d.done {
		return
	}
	d.done = true
	d.timer.off = true
	if d.step == stepBody {
		d.s.lost(d.m.id)
	}
	d.c.hangUp(true)
	d.s.again(d.m)
}

// ended implements peer.
func (d *dialogue) ended(*conn) { d.fail() }

// receive implements peer.
func (d *dialogue) receive(c *conn, b []byte) {
	if d.done {
		return
	}
	d.buf = append(d.buf, b...)
	for {
		// A whole reply: its last line has a blank after the code.
		end := 0
		for rest := d.buf; ; {
			line, after, whole := bytes.Cut(rest, []byte("\r\n"))
			if !whole {
				return
			}
			rest = after
			if len(line) < 4 || line[3] == ' ' {
				end = len(d.buf) - len(after)
				break
			}
		}
		reply := string(d.buf[:end])
		d.buf = d.buf[end:]
		d.wait()
		d.answered(c, reply)
		if d.done {
			return
		}
	}
}

func (d *dialogue) say(c *conn, text string) { c.answer([]byte(text), 0) }

func (d *dialogue) answered(c *conn, reply string) {
	code := 0
	_, _ = fmt.Sscanf(reply, "%d", &code)
	if code/100 == 5 {
		d.s.w.violated("P5", "%s answered %q to %s", d.node, strings.TrimSpace(reply), d.m.id)
		d.over(c)
		return
	}
	bad := code/100 == 4
	switch d.step {
	case stepGreeting:
		if bad {
			d.over(c)
			return
		}
		d.step = stepHello
		d.say(c, "EHLO relay.example\r\n")
	case stepHello:
		d.step = stepMail
		d.asked = append([]string(nil), d.m.rcpts...)
		text := "MAIL FROM:<s@out.example>\r\n"
		for _, r := range d.asked {
			text += "RCPT TO:<" + r + ">\r\n"
		}
		d.s.names(d.m.id)
		d.say(c, text)
	case stepMail:
		if bad {
			d.over(c)
			return
		}
		d.step = stepRcpt
	case stepRcpt:
		r := d.asked[0]
		d.asked = d.asked[1:]
		if !bad {
			d.taken = append(d.taken, r)
		}
		if len(d.asked) > 0 {
			return
		}
		if len(d.taken) == 0 {
			d.over(c)
			return
		}
		d.step = stepData
		d.say(c, "DATA\r\n")
	case stepData:
		if bad {
			d.over(c)
			return
		}
		d.step = stepBody
		d.say(c, fmt.Sprintf("Message-ID: <%s@out.example>\r\nX-Sim-Id: %s\r\nSubject: %s\r\n\r\n%s\r\n.\r\n", d.m.id, d.m.id, d.m.id, strings.Repeat("text ", 20)))
	case stepBody:
		for _, r := range d.taken {
			d.s.told(d.m.id, r, d.node, code)
			if !bad {
				d.m.rcpts = without(d.m.rcpts, r)
			}
		}
		d.over(c)
	}
}

func without(list []string, s string) []string {
	kept := []string{}
	for _, x := range list {
		if x != s {
			kept = append(kept, x)
		}
	}
	return kept
}

// over ends a dialogue that was answered.
func (d *dialogue) over(c *conn) {
	d.done = true
	d.timer.off = true
	d.say(c, "QUIT\r\n")
	c.hangUp(false)
	if len(d.m.rcpts) == 0 {
		d.s.open--
		return
	}
	d.s.again(d.m)
}
