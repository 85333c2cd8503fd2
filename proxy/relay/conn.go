package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"mailcutover/internal/nonblock"
)

// bufferBytes is how much of commands or body is collected for one write.
const bufferBytes = 32 << 10

// longAgo is a deadline that ends every read and write at once.
var longAgo = time.Unix(1, 0)

// conn is one connection to a platform. It belongs to one goroutine at a time; only
// interrupt runs beside it.
type conn struct {
	host  *host
	raw   *wire    // the socket
	nc    net.Conn // raw, or TLS over it
	peek  *peeker
	reply replyReader
	out   []byte // commands or body not yet written; capacity bufferBytes

	caps     Capabilities
	counted  bool     // in host.conns
	verified bool     // TLS with the platform's identity proven
	identity identity // whose connection it is

	born, idleSince time.Time
	limit           time.Time // born and the platform's limit; zero: none
	messages        int       // transactions begun
	worked          bool      // a MAIL was answered on it
	trusted         bool      // a recipient was taken on it: the platform takes mail from who we are
	block           time.Duration

	watched     <-chan struct{} // Done of the context whose end interrupts
	unwatch     func() bool
	interrupted atomic.Pointer[error] // set before the deadline in the past is
}

// wire counts what reached the kernel, so that a failed write of the dot can be told
// from one that was possibly sent, also below TLS.
type wire struct {
	net.Conn
	socket  *nonblock.Socket // of Conn; nil: none
	more    bool             // what is written goes out with what is written next
	written int64
}

func (w *wire) Read(p []byte) (int, error) {
	if w.socket != nil {
		return w.socket.Read(p)
	}
	return w.Conn.Read(p)
}

func (w *wire) Write(p []byte) (n int, err error) {
	if w.socket != nil && w.more {
		n, err = w.socket.WriteMore(p)
	} else if w.socket != nil {
		n, err = w.socket.Write(p)
	} else {
		n, err = w.Conn.Write(p)
	}
	w.written += int64(n)
	return n, err
}

func newConn(nc net.Conn, h *host, block, platformLimit time.Duration) *conn {
	c := &conn{host: h, raw: &wire{Conn: nc, socket: nonblock.New(nc)}, peek: newPeeker(nc), born: time.Now(), block: block}
	if platformLimit > 0 {
		c.limit = c.born.Add(platformLimit)
	}
	c.nc = c.raw
	c.reply.br = bufio.NewReaderSize(c.raw, maxReplyLine)
	c.out = make([]byte, 0, bufferBytes)
	return c
}

// watch makes the end of ctx interrupt all reads and writes from now on, instead of the
// end of the context before. It costs nothing while the context stays the same.
func (c *conn) watch(ctx context.Context) error {
	if done := ctx.Done(); done != c.watched {
		if !c.release() {
			return c.cause()
		}
		if done != nil {
			c.watched = done
			c.unwatch = context.AfterFunc(ctx, func() { c.interrupt(context.Cause(ctx)) })
		}
	}
	if ctx.Err() != nil {
		c.interrupt(context.Cause(ctx))
		return c.cause()
	}
	return nil
}

// release ends the watch. It reports false if the context has ended meanwhile: then
// the connection is of no more use, since interrupt may still be running.
func (c *conn) release() bool {
	ok := c.unwatch == nil || c.unwatch()
	c.watched, c.unwatch = nil, nil
	return ok && c.interrupted.Load() == nil
}

// interrupt ends every read and write, now and later. It runs on a goroutine of its
// own; the order of its two steps and that of deadline's make sure that it isn't lost.
func (c *conn) interrupt(cause error) {
	c.interrupted.Store(&cause)
	c.raw.SetDeadline(longAgo)
}

func (c *conn) cause() error {
	if p := c.interrupted.Load(); p != nil {
		return *p
	}
	return context.Canceled
}

// within returns the moment d from now, or the platform's limit if that comes first.
func (c *conn) within(d time.Duration) time.Time {
	t := time.Now().Add(d)
	if !c.limit.IsZero() && t.After(c.limit) {
		return c.limit
	}
	return t
}

// write writes p within one deadline.
func (c *conn) write(p []byte) error {
	c.raw.SetWriteDeadline(c.within(c.block))
	if c.interrupted.Load() != nil {
		return c.cause()
	}
	if _, err := c.nc.Write(p); err != nil {
		return c.ioError("write", err)
	}
	return nil
}

// flush writes what is in out.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.out = c.out[:0]
	return err
}

// read returns the code of the next reply, all of which has to arrive within d.
func (c *conn) read(d time.Duration) (int, error) {
	c.raw.SetReadDeadline(c.within(d))
	if c.interrupted.Load() != nil {
		return 0, c.cause()
	}
	code, err := c.reply.read()
	if err != nil {
		return 0, c.ioError("wait for the answer", err)
	}
	return code, nil
}

// command writes one line, which may have a secret in it, and reads the answer.
func (c *conn) command(line string, d time.Duration) (int, error) {
	c.out = append(append(c.out[:0], line...), "\r\n"...)
	err := c.flush()
	clear(c.out[:len(line)])
	if err != nil {
		return 0, err
	}
	return c.read(d)
}

// ioError says what ended a read or write: the context, a deadline, or the network.
func (c *conn) ioError(doing string, err error) error {
	switch {
	case c.interrupted.Load() != nil:
		return fmt.Errorf("%s: %w", doing, c.cause())
	case errors.Is(err, os.ErrDeadlineExceeded) && c.outlived():
		return fmt.Errorf("%s: the platform's connection limit has passed: %w", doing, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// stale reports whether something came in while nothing was asked for: the end, a 421, or
// an answer too many, after which no answer could be trusted.
func (c *conn) stale() bool {
	if c.reply.br.Buffered() > 0 || c.peek.pending() {
		return true
	}
	if c.nc == c.raw {
		return false
	}
	// TLS may have taken more from the socket than it gave us.
	c.raw.SetReadDeadline(longAgo)
	_, err := c.reply.br.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// outlived reports whether c is older than the platform lets a connection become.
func (c *conn) outlived() bool {
	return !c.limit.IsZero() && !time.Now().Before(c.limit)
}

// quit closes a connection on which no transaction is open, politely but without waiting
// for an answer: QUIT is all that can be in the socket's buffer, so it may linger there.
func (c *conn) quit() {
	if l, ok := c.raw.Conn.(interface{ SetLinger(sec int) error }); ok && c.release() {
		c.raw.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.nc.Write([]byte("QUIT\r\n")); err == nil {
			l.SetLinger(-1)
		}
	}
	c.cut()
}

// cut closes the socket at once, without a word. TLS must not add its closing alert:
// after an aborted transaction nothing more is sent.
func (c *conn) cut() {
	c.release()
	if c.counted {
		c.counted = false
		c.host.conns.Add(-1)
	}
	c.raw.Close()
}
