package redismodel

import (
	"fmt"
	"maps"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// Options are what a server needs of its surroundings.
type Options struct {
	Name string

	// Now is the server's clock. It may jump.
	Now func() time.Time

	// After calls f once, d from now, unless the function that it returns was called
	// before. It takes real time: a jump of Now doesn't alter it.
	After func(d time.Duration, f func()) (stop func())

	// Token returns n random hexadecimal digits.
	Token func(n int) string

	// Password is that of the default user; empty: none.
	Password string

	// MinReplicas and MaxLag are min-replicas-to-write and min-replicas-max-lag.
	MinReplicas int
	MaxLag      time.Duration
}

// Server is one redis-server. Use [New].
type Server struct {
	o        Options
	data     data
	scripts  map[string]string // sha1 to text
	lua      *lua.LState
	words    map[status]lua.LValue // of lua
	running  *call                 // of the script that runs
	sessions map[*Session]struct{}
	serial   int // of sessions

	runID, replID, replID2 string
	offset                 int64 // of the replication stream
	primary                *Link // to whom it is attached; nil: it is a primary
	links                  []*Link

	backlog bool // replicas could go on from here
	hung    bool
	down    bool
	jump    time.Duration
	Refused map[string]int // writes refused, by code; for oracles

	// OnWrite is told of each write of a client, as replicas get it; nil: nobody.
	OnWrite func(args []string)

	effects []effect // of the command, script or transaction that runs
	touched []string // streams that grew
}

// effect is one write as replicas get it.
type effect []string

// New returns an empty primary.
func New(o Options) *Server {
	s := &Server{o: o, data: data{}, scripts: map[string]string{}, sessions: map[*Session]struct{}{}, Refused: map[string]int{}}
	s.runID, s.replID = o.Token(40), o.Token(40)
	s.replID2 = noReplID
	return s
}

// Name returns the server's name.
func (s *Server) Name() string { return s.o.Name }

// Primary reports whether the server takes writes, as far as it knows.
func (s *Server) Primary() bool { return s.primary == nil }

// Down reports whether it is stopped.
func (s *Server) Down() bool { return s.down }

// Jump sets the clock forth or back, beside what earlier calls did.
func (s *Server) Jump(d time.Duration) { s.jump += d }

func (s *Server) now() time.Time { return s.o.Now().Add(s.jump) }

// Stop ends the process: all connections are cut. Data stay, as on a disk.
func (s *Server) Stop() {
	s.down = true
	for _, c := range sortedSessions(s.sessions) {
		c.cut()
	}
	for _, l := range s.links {
		l.break_()
	}
	if s.primary != nil {
		s.primary.break_()
	}
	s.lua, s.scripts = nil, map[string]string{}
}

// Start begins another life with the same data. The server is a primary.
func (s *Server) Start() {
	s.down, s.hung = false, false
	s.primary, s.links, s.backlog = nil, nil, false
	s.runID, s.replID, s.replID2 = s.o.Token(40), s.o.Token(40), noReplID
}

// Hang stops the process, which answers nothing until Resume; connections stay.
func (s *Server) Hang() { s.hung = true }

// Resume lets a process that hangs go on.
func (s *Server) Resume() {
	s.hung = false
	for _, c := range sortedSessions(s.sessions) {
		c.work()
	}
	if s.primary != nil {
		s.primary.deliver()
	}
	for _, l := range s.links {
		l.acknowledge()
	}
}

// Snapshot is a backup of a server's data.
type Snapshot struct{ data data }

// Snapshot copies all data.
func (s *Server) Snapshot() Snapshot { return Snapshot{s.data.clone()} }

// Restore puts a backup in the place of all data. It is for a server that is down.
func (s *Server) Restore(b Snapshot) { s.data = b.data.clone() }

// Empty is FLUSHALL by somebody.
func (s *Server) Empty() {
	clear(s.data)
	s.effects = append(s.effects, effect{"FLUSHALL"})
	s.finish()
}

// Hash returns a copy of the hash at a key, for oracles.
func (s *Server) Hash(key string) map[string]string {
	if v := s.data[key]; v != nil && v.hash != nil {
		return maps.Clone(v.hash.fields)
	}
	return nil
}

// call is one command that is carried out.
type call struct {
	*Server
	session *Session // nil: from the primary
	args    []string
	nested  bool // in a script or transaction
	script  bool
}

func (c *call) arity() failure {
	return failure("ERR wrong number of arguments for '" + strings.ToLower(c.args[0]) + "' command")
}

// wrote notes a write for the replicas.
func (c *call) wrote(args ...string) { c.effects = append(c.effects, args) }

// do carries out one command.
func (s *Server) do(c *call) any {
	name := strings.ToUpper(c.args[0])
	cmd, known := commands[name]
	if !known {
		return unknownCommand(c.args)
	}
	if n := len(c.args); cmd.arity > 0 && n != cmd.arity || n < -cmd.arity {
		return c.arity()
	}
	if cmd.write && c.session != nil {
		if f := s.mayWrite(); f != "" {
			s.Refused[strings.Fields(string(f))[0]]++
			return f
		}
	}
	if c.script && cmd.noScript {
		return failure("ERR This Redis command is not allowed from script")
	}
	return cmd.run(c)
}

func unknownCommand(args []string) failure {
	var b strings.Builder
	for _, a := range args[1:] {
		if b.Len() >= 128 {
			break
		}
		fmt.Fprintf(&b, "'%.*s' ", 128-b.Len(), a)
	}
	return failure(fmt.Sprintf("ERR unknown command '%.128s', with args beginning with: %s", args[0], b.String()))
}

// mayWrite returns why the server takes no writes, or "".
func (s *Server) mayWrite() failure {
	switch {
	case s.primary != nil:
		return "READONLY You can't write against a read only replica."
	case s.good() < s.o.MinReplicas:
		return "NOREPLICAS Not enough good replicas to write."
	}
	return ""
}

// good counts the replicas that were heard of lately.
func (s *Server) good() (n int) {
	if s.o.MinReplicas == 0 {
		return 0
	}
	for _, l := range s.links {
		if l.up && s.o.Now().Sub(l.heard) <= s.o.MaxLag {
			n++
		}
	}
	return n
}

// finish hands what a command wrote to the replicas, and wakes who waits for it.
func (s *Server) finish() {
	if len(s.effects) == 0 {
		return
	}
	group := s.effects
	s.effects = nil
	if s.OnWrite != nil && s.primary == nil {
		for _, e := range group {
			s.OnWrite(e)
		}
	}
	s.offset += int64(len(group))
	for _, l := range s.links {
		l.send(group)
	}
	if len(s.touched) > 0 {
		touched := s.touched
		s.touched = nil
		for _, c := range sortedSessions(s.sessions) {
			c.wake(touched)
		}
	}
}

// apply takes over a group of writes from the primary.
func (s *Server) apply(group []effect) {
	for _, e := range group {
		r := s.do(&call{Server: s, args: e})
		if err, bad := r.(error); bad {
			panic(fmt.Sprintf("redismodel: replica %s: %v: %v", s.o.Name, e, err))
		}
	}
	s.finish()
}
