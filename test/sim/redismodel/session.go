package redismodel

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Session is one client's connection.
type Session struct {
	server  *Server
	serial  int
	out     func([]byte)
	closed  func()
	in      []byte
	version int // of RESP
	known   bool
	multi   bool
	dirty   bool // a command of the transaction was refused
	queue   [][]string
	wrote   int64 // offset after the last write

	waiting *waitingRead
	wait    *waitingCount
	stop    func()
	gone    bool
}

// waitingCount is a WAIT.
type waitingCount struct {
	replicas int64
	offset   int64
}

func sortedSessions(set map[*Session]struct{}) []*Session {
	return slices.SortedFunc(maps.Keys(set), func(a, b *Session) int { return cmp.Compare(a.serial, b.serial) })
}

// Connect returns a new client's session. out gets the answers; closed is called when the
// server ends the connection.
func (s *Server) Connect(out func([]byte), closed func()) *Session {
	s.serial++
	c := &Session{server: s, serial: s.serial, out: out, closed: closed, version: 2, known: s.o.Password == ""}
	s.sessions[c] = struct{}{}
	return c
}

// Close ends the session by the client.
func (c *Session) Close() {
	if c.gone {
		return
	}
	c.gone = true
	if c.stop != nil {
		c.stop()
	}
	delete(c.server.sessions, c)
}

// cut ends it by the server.
func (c *Session) cut() {
	if !c.gone {
		c.Close()
		c.closed()
	}
}

// Feed brings bytes of the client.
func (c *Session) Feed(b []byte) {
	if c.gone {
		return
	}
	c.in = append(c.in, b...)
	c.work()
}

// work carries out what has come in.
func (c *Session) work() {
	for !c.gone && !c.server.hung && !c.server.down && c.waiting == nil && c.wait == nil {
		args, n, bad := parse(c.in)
		if bad {
			c.reply(failure("ERR Protocol error"))
			c.cut()
			return
		}
		if n == 0 {
			return
		}
		c.in = c.in[n:]
		if len(args) > 0 {
			c.command(args)
		}
	}
}

var crlf = []byte("\r\n")

// parse returns the next command and its length; 0 if it isn't complete.
func parse(b []byte) (args []string, n int, bad bool) {
	line := func(at int) (string, int) {
		i := bytes.Index(b[at:], crlf)
		if i < 0 {
			return "", 0
		}
		return string(b[at : at+i]), at + i + 2
	}
	if len(b) == 0 {
		return nil, 0, false
	}
	if b[0] != '*' {
		text, next := line(0)
		return strings.Fields(text), next, false
	}
	text, at := line(1)
	if at == 0 {
		return nil, 0, false
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		return nil, 0, true
	}
	for range count {
		if at >= len(b) {
			return nil, 0, false
		}
		if b[at] != '$' {
			return nil, 0, true
		}
		text, next := line(at + 1)
		if next == 0 {
			return nil, 0, false
		}
		size, err := strconv.Atoi(text)
		if err != nil || size < 0 {
			return nil, 0, true
		}
		if len(b) < next+size+2 {
			return nil, 0, false
		}
		args = append(args, string(b[next:next+size]))
		at = next + size + 2
	}
	return args, at, false
}

func (c *Session) reply(r any) { c.out(appendReply(nil, c.version, r)) }

// command carries out one command of the client.
func (c *Session) command(args []string) {
	name := strings.ToUpper(args[0])
	if !c.known && name != "AUTH" && name != "HELLO" && name != "QUIT" {
		c.reply(failure("NOAUTH Authentication required."))
		return
	}
	if c.multi && name != "EXEC" && name != "DISCARD" && name != "MULTI" && name != "WATCH" {
		cmd, known := commands[name]
		switch {
		case !known:
			c.dirty = true
			c.reply(unknownCommand(args))
		case cmd.arity > 0 && len(args) != cmd.arity || len(args) < -cmd.arity:
			c.dirty = true
			c.reply((&call{args: args}).arity())
		default:
			if cmd.write {
				if f := c.server.mayWrite(); f != "" {
					c.dirty = true
					c.reply(f)
					return
				}
			}
			c.queue = append(c.queue, args)
			c.reply(status("QUEUED"))
		}
		return
	}
	before := c.server.offset
	answer := c.server.do(&call{Server: c.server, session: c, args: args})
	c.server.finish()
	if c.server.offset != before {
		c.wrote = c.server.offset
	}
	switch r := answer.(type) {
	case *waitingRead:
		c.waiting = r
		if r.block > 0 {
			c.stop = c.server.o.After(time.Duration(r.block)*time.Millisecond, c.timeout)
		}
	case *waitingCount:
		c.wait = r
	case closing:
		c.reply(r.answer)
		c.cut()
	default:
		c.reply(answer)
	}
}

// closing is the answer of a command that ends the connection.
type closing struct{ answer any }

// resume goes on after a wait.
func (c *Session) resume(answer any) {
	if c.stop != nil {
		c.stop()
	}
	c.waiting, c.wait, c.stop = nil, nil, nil
	c.reply(answer)
	c.work()
}

// timeout ends a wait without what was waited for.
func (c *Session) timeout() {
	switch {
	case c.gone:
	case c.server.hung || c.server.down:
		c.stop = c.server.o.After(10*time.Millisecond, c.timeout)
	case c.waiting != nil:
		c.resume(nullArray{})
	case c.wait != nil:
		c.resume(c.server.acknowledged(c.wait.offset))
	}
}

// wake looks whether an XREAD has what it waits for.
func (c *Session) wake(touched []string) {
	if c.waiting == nil || c.server.hung {
		return
	}
	for _, key := range c.waiting.keys {
		if slices.Contains(touched, key) {
			if r := c.server.read(c.waiting); r != (any)(nullArray{}) {
				c.resume(r)
			}
			return
		}
	}
}

// counted looks whether a WAIT has its replicas.
func (c *Session) counted() {
	if c.wait == nil || c.server.hung {
		return
	}
	if n := c.server.acknowledged(c.wait.offset); n >= c.wait.replicas {
		c.resume(n)
	}
}

// unblocked ends waits when the server's role changes.
func (c *Session) unblocked() {
	if c.waiting != nil || c.wait != nil {
		c.resume(failure("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"))
	}
}
