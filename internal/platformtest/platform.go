package platformtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Platform is a running platform. Its methods are safe for concurrent use.
type Platform struct {
	o        Options
	listener net.Listener
	closing  chan struct{} // closed by Close
	running  sync.WaitGroup

	mu           sync.Mutex
	script       Script
	changed      chan struct{} // closed, and replaced, when the record grows
	commands     []Command
	transactions []Transaction
	stored       int                 // of transactions
	conns        map[net.Conn]string // open ones, with the client's address without port
	connections  Connections
}

// Connections counts connections.
type Connections struct {
	Open  int
	Peak  int // most that were open at a time
	Total int
}

// Start starts a platform. Close ends it.
func Start(o Options) (*Platform, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Hostname == "" {
		o.Hostname = "platform.test"
	}
	if o.Extensions == nil {
		o.Extensions = DefaultExtensions
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Minute
	}
	if o.ImplicitTLS && o.TLS == nil {
		return nil, errors.New("start test platform: ImplicitTLS without TLS")
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("start test platform: %w", err)
	}
	p := &Platform{
		o:        o,
		listener: listener,
		closing:  make(chan struct{}),
		script:   o.Script,
		changed:  make(chan struct{}),
		conns:    make(map[net.Conn]string),
	}
	p.running.Go(p.accept)
	return p, nil
}

// Addr returns host and port.
func (p *Platform) Addr() string { return p.listener.Addr().String() }

// Close stops listening, drops all connections and waits for their ends. The record
// stays readable. A second Close does nothing.
func (p *Platform) Close() {
	p.mu.Lock()
	select {
	case <-p.closing:
	default:
		close(p.closing)
		p.listener.Close()
		for conn := range p.conns {
			conn.Close()
		}
	}
	p.mu.Unlock()
	p.running.Wait()
}

// SetScript replaces the script, for commands that are not yet being answered.
func (p *Platform) SetScript(s Script) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = s
}

// Drop drops all open connections; new ones are taken.
func (p *Platform) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}

// Transactions returns the transactions that have ended, in the order of their ends:
// stored, refused, reset, or broken off.
func (p *Platform) Transactions() []Transaction {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.transactions)
}

// Stored returns the transactions whose message the platform took.
func (p *Platform) Stored() []Transaction {
	return slices.DeleteFunc(p.Transactions(), func(t Transaction) bool { return !t.Stored })
}

// Commands returns everything that was answered, or would have been, in order.
func (p *Platform) Commands() []Command {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.commands)
}

// Connections counts the connections so far.
func (p *Platform) Connections() Connections {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connections
}

// Wait returns when done says so. It asks again whenever the record or the number of
// connections changes. The error names the end of ctx or of the platform.
func (p *Platform) Wait(ctx context.Context, done func(*Platform) bool) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if done(p) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for test platform %s: %w", p.Addr(), ctx.Err())
		}
	}
}

// WaitStored waits until n messages are stored and returns all that are.
func (p *Platform) WaitStored(ctx context.Context, n int) ([]Transaction, error) {
	err := p.Wait(ctx, func(p *Platform) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.stored >= n
	})
	stored := p.Stored()
	if err != nil {
		return stored, fmt.Errorf("%d of %d messages: %w", len(stored), n, err)
	}
	return stored, nil
}

func (p *Platform) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			select {
			case <-p.closing:
				return
			case <-time.After(10 * time.Millisecond): // out of descriptors: others end
				continue
			}
		}
		p.begin(conn)
	}
}

// begin registers a connection and serves it in a goroutine of its own.
func (p *Platform) begin(conn net.Conn) {
	host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closing:
		conn.Close()
		return
	default:
	}
	p.conns[conn] = host
	p.connections.Total++
	p.connections.Open++
	p.connections.Peak = max(p.connections.Peak, p.connections.Open)
	open := 0
	for _, h := range p.conns {
		if h == host {
			open++
		}
	}
	c := newConn(p, conn, p.connections.Total, open)
	p.signal()
	p.running.Go(func() {
		c.serve()
		conn.Close()
		p.mu.Lock()
		delete(p.conns, conn)
		p.connections.Open--
		p.signal()
		p.mu.Unlock()
	})
}

// signal wakes those who wait; with p.mu held.
func (p *Platform) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Platform) react(c Command) Reaction {
	p.mu.Lock()
	script := p.script
	p.mu.Unlock()
	if script == nil {
		return Reaction{}
	}
	return script(c)
}

func (p *Platform) recordCommand(c Command) {
	c.Transaction, c.Usual = nil, ""
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands = append(p.commands, c)
	p.signal()
}

func (p *Platform) recordTransaction(t Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.transactions = append(p.transactions, t)
	if t.Stored {
		p.stored++
	}
	p.signal()
}
