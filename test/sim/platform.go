package sim

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// platform is a mail system that takes everything and writes down when.
type platform struct {
	w     *World
	name  string
	limit time.Duration // how long a connection lives, whatever happens on it
	takes func(a accepted)

	down    bool
	slow    time.Duration // that a dot's answer takes at most
	exactly time.Duration // that it takes; 0: drawn
	dots    int           // so far
	refuse  float64       // how many dots are answered 451
	drop    float64       // how many dots get no answer; half of them are taken
	putOff  float64       // how many RCPTs are answered 450
	serials int
}

// accepted is a message that a platform took.
type accepted struct {
	at          time.Time
	platform    string
	message     string // X-Sim-Id
	rcpt        string // canonical address on the platform
	transaction string // of our node
}

// inbound is one connection to a platform.
type inbound struct {
	p      *platform
	serial int
	buf    []byte
	mail   bool
	rcpts  []string
	data   bool
	gone   bool
}

func (p *platform) open() (peer, error) {
	if p.down {
		return nil, errRefused
	}
	p.serials++
	return &inbound{p: p, serial: p.serials}, nil
}

// greet implements greeter.
func (i *inbound) greet(c *conn) {
	c.answer([]byte("220 "+i.p.name+" ESMTP\r\n"), 0)
	i.p.w.after(i.p.limit, "", func() {
		i.gone = true
		c.hangUp(true)
	})
}

// ended implements peer. What was taken in is not given back.
func (i *inbound) ended(*conn) { i.gone = true }

// receive implements peer.
func (i *inbound) receive(c *conn, b []byte) {
	if i.gone {
		return
	}
	if i.p.down {
		i.gone = true
		c.hangUp(true)
		return
	}
	i.buf = append(i.buf, b...)
	for !i.gone {
		if i.data {
			end := bytes.Index(i.buf, []byte("\r\n.\r\n"))
			if end < 0 {
				return
			}
			body := string(i.buf[:end+2])
			i.buf = i.buf[end+5:]
			i.data = false
			i.dot(c, body)
			continue
		}
		line, rest, whole := bytes.Cut(i.buf, []byte("\r\n"))
		if !whole {
			return
		}
		i.buf = rest
		i.command(c, string(line))
	}
}

func (i *inbound) command(c *conn, line string) {
	say := func(text string) { c.answer([]byte(text+"\r\n"), 0) }
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		say("250-" + i.p.name + "\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8")
	case "MAIL":
		i.mail, i.rcpts = true, nil
		say("250 2.1.0 fine")
	case "RCPT":
		to, _, _ := strings.Cut(strings.TrimPrefix(rest, "TO:<"), ">")
		switch {
		case !i.mail:
			say("503 5.5.1 MAIL first")
		case i.p.w.chance(i.p.putOff):
			i.p.w.fault("platform puts a mailbox off")
			say("450 4.2.1 busy")
		default:
			i.rcpts = append(i.rcpts, to)
			say("250 2.1.5 fine")
		}
	case "DATA":
		if len(i.rcpts) == 0 {
			say("554 5.5.1 nobody")
			return
		}
		i.data = true
		say("354 go on")
	case "RSET":
		i.mail, i.rcpts = false, nil
		say("250 2.0.0 fine")
	case "QUIT":
		say("221 2.0.0 bye")
		i.gone = true
		c.hangUp(false)
	default:
		say("250 2.0.0 fine")
	}
}

var (
	simID         = regexp.MustCompile(`(?m)^X-Sim-Id: (\S+)\r$`)
	transactionID = regexp.MustCompile(`\bid ([0-9a-v]{26})\b`)
)

// dot takes a message, or not.
func (i *inbound) dot(c *conn, body string) {
	p, rcpts := i.p, i.rcpts
	i.mail, i.rcpts = false, nil
	id := simID.FindStringSubmatch(body)
	if id == nil {
		p.w.violated("I11", "%s got a message without its id: %.80q", p.name, body)
		return
	}
	transaction := ""
	if t := transactionID.FindStringSubmatch(body); t != nil {
		transaction = t[1]
	}
	p.dots++
	work := p.w.between(0, max(p.slow, 2*time.Millisecond))
	if p.exactly > 0 {
		work = p.exactly
	}
	if p.slow > 0 {
		p.w.fault("platform is slow")
	}
	take := func() {
		for _, r := range rcpts {
			p.takes(accepted{time.Now(), p.name, id[1], r, transaction})
		}
	}
	switch {
	case p.w.chance(p.refuse):
		p.w.fault("platform answers 451 to the dot")
		c.answer([]byte("451 4.3.2 not now\r\n"), work)
	case p.w.chance(p.drop):
		i.gone = true
		if p.w.chance(0.5) {
			p.w.fault("platform takes a message and is gone")
			p.w.after(work, "", take)
		} else {
			p.w.fault("platform is gone before it takes a message")
		}
		p.w.after(work/2, "", func() { c.hangUp(true) })
	default:
		// It is taken once begun, whatever becomes of the connection meanwhile, but not
		// after the limit.
		p.w.after(work, fmt.Sprintf("%s takes %s for %s", p.name, id[1], strings.Join(rcpts, ",")), func() {
			take()
			c.answer([]byte("250 2.6.0 taken\r\n"), 0)
		})
	}
}
