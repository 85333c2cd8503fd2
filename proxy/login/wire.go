package login

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Errors of reading lines. Dialogues test for them with errors.Is.
var (
	// ErrLineTooLong is for a line beyond its bound. The rest of it is still unread.
	ErrLineTooLong = errors.New("line too long")
	// ErrBareLineEnd is for a line that ends in LF without CR, or has a CR or NUL in it. The
	// line was read.
	ErrBareLineEnd = errors.New("CR, LF or NUL within a line")
	// ErrInjected is for bytes that came behind STARTTLS, before the handshake: whoever
	// sent them could be anybody (CVE-2011-0411).
	ErrInjected = errors.New("bytes behind STARTTLS")
	// ErrProxyHeader is for a PROXY header of a peer that may send none.
	ErrProxyHeader = errors.New("PROXY header from a peer that may send none")
	// ErrQuit is what Serve returns when the client said that it goes.
	ErrQuit = errors.New("quit")
)

// wire reads lines from a connection and writes to it, both buffered. It belongs to one
// goroutine. Its buffers come with the first byte and are given up by Rest.
type wire struct {
	nc       net.Conn
	pool     *buffers // nil: none
	in       []byte   // unread: in[at:]
	at       int
	out      []byte
	deadline func() time.Time   // of the next read; zero time: none
	first    func([]byte) error // looks at the first bytes that come; nil: nobody does
	heard    bool               // something has come
	ended    func() error       // why nothing is to be waited for; nil: never
	write    time.Duration      // the longest that a flush may take
}

// readSize is what is read at once.
const readSize = 4096

// buffers are those of wires that have read what they wanted. They are wiped.
type buffers struct{ sync.Pool }

// get returns an empty buffer of readSize.
func (b *buffers) get() []byte {
	if b != nil {
		if p, ok := b.Get().(*[readSize]byte); ok {
			return p[:0]
		}
	}
	return make([]byte, 0, readSize)
}

// put takes a buffer back that nobody uses any more.
func (b *buffers) put(p []byte) {
	p = p[:cap(p)]
	clear(p)
	if b != nil && len(p) == readSize {
		b.Put((*[readSize]byte)(p))
	}
}

// ReadLine returns the next line without its CRLF; it is valid until the next read. What was
// written is flushed before it waits. max is the longest line in bytes, with CRLF.
func (w *wire) ReadLine(max int) ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(w.in[w.at+searched:], '\n'); i >= 0 {
			n := searched + i + 1
			if n > max {
				return nil, ErrLineTooLong
			}
			line := w.in[w.at : w.at+n]
			w.at += n
			body, ok := bytes.CutSuffix(line, []byte("\r\n"))
			if !ok || bytes.ContainsAny(body, "\r\x00") {
				return bytes.TrimRight(body, "\r\n"), ErrBareLineEnd
			}
			return body, nil
		}
		searched = len(w.in) - w.at
		if searched >= max {
			return nil, ErrLineTooLong
		}
		if err := w.fill(); err != nil {
			return nil, err
		}
	}
}

// ReadExact returns the next n bytes; they are valid until the next read. The caller has
// bounded n.
func (w *wire) ReadExact(n int) ([]byte, error) {
	for len(w.in)-w.at < n {
		if err := w.fill(); err != nil {
			return nil, err
		}
	}
	p := w.in[w.at : w.at+n]
	w.at += n
	return p, nil
}

// Skip reads n bytes and forgets them.
func (w *wire) Skip(n int64) error {
	for n > 0 {
		if w.at == len(w.in) {
			if err := w.fill(); err != nil {
				return err
			}
		}
		k := min(n, int64(len(w.in)-w.at))
		w.at += int(k)
		n -= k
	}
	return nil
}

// Buffered returns how many bytes came that are not read yet.
func (w *wire) Buffered() int { return len(w.in) - w.at }

// fill flushes, and reads what comes next.
func (w *wire) fill() error {
	if err := w.Flush(); err != nil {
		return err
	}
	if w.at > 0 {
		// A line or literal that was handed out is not valid any more.
		n := copy(w.in, w.in[w.at:])
		clear(w.in[n:])
		w.in, w.at = w.in[:n], 0
	}
	switch {
	case cap(w.in) == 0:
		w.in = w.pool.get()
	case cap(w.in)-len(w.in) < readSize/4:
		grown := make([]byte, len(w.in), 2*cap(w.in)+readSize)
		copy(grown, w.in)
		w.pool.put(w.in)
		w.in = grown
	}
	var until time.Time
	if w.deadline != nil {
		until = w.deadline()
	}
	if err := w.nc.SetReadDeadline(until); err != nil {
		return err
	}
	// After the deadline: whoever ends the connection sets one that has passed, and this
	// one may have replaced it.
	if w.ended != nil {
		if err := w.ended(); err != nil {
			return err
		}
	}
	n, err := w.nc.Read(w.in[len(w.in):cap(w.in)])
	w.in = w.in[:len(w.in)+n]
	if n > 0 {
		if !w.heard && w.first != nil {
			if err := w.first(w.in); err != nil {
				w.in = w.in[:0]
				return err
			}
		}
		w.heard = true
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return w.why(err)
}

// why returns the reason for an error of the connection: that somebody ended it, if so.
func (w *wire) why(err error) error {
	if w.ended != nil {
		if reason := w.ended(); reason != nil {
			return reason
		}
	}
	return err
}

// Write appends to what is to be sent; it implements io.Writer and returns no error.
func (w *wire) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// Print appends the strings to what is to be sent.
func (w *wire) Print(parts ...string) {
	for _, p := range parts {
		w.out = append(w.out, p...)
	}
}

// Flush sends what was written.
func (w *wire) Flush() error {
	if len(w.out) == 0 {
		return nil
	}
	err := w.send(w.out)
	clear(w.out)
	w.out = w.out[:0]
	if err != nil {
		return w.why(err)
	}
	return nil
}

// send writes p. What the socket takes at once needs no deadline.
func (w *wire) send(p []byte) error {
	if nc, ok := w.nc.(interface{ WriteNow([]byte) (int, error) }); ok {
		n, err := nc.WriteNow(p)
		if err != nil || n == len(p) {
			return err
		}
		p = p[n:]
	}
	if err := w.nc.SetWriteDeadline(time.Now().Add(w.write)); err != nil {
		return err
	}
	_, err := w.nc.Write(p)
	return err
}

// upgrade puts TLS on the connection, which has said all that comes before the handshake.
func (w *wire) upgrade(make func(net.Conn) *tls.Conn, within time.Duration) (*tls.Conn, error) {
	if w.Buffered() > 0 {
		return nil, ErrInjected
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	if err := w.nc.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	if w.ended != nil {
		if err := w.ended(); err != nil {
			return nil, err
		}
	}
	t := make(w.nc)
	if err := t.Handshake(); err != nil {
		return nil, w.why(fmt.Errorf("TLS handshake: %w", err))
	}
	w.nc = t
	return t, nil
}

// Rest returns what was read and not used, and gives the buffers up: nothing is read or
// written by this wire any more. It is for whoever goes on with the connection.
func (w *wire) Rest() []byte {
	p := bytes.Clone(w.in[w.at:])
	clear(w.out[:cap(w.out)])
	if cap(w.in) > 0 {
		w.pool.put(w.in)
	}
	w.in, w.at, w.out = nil, 0, nil
	return p
}

// What a peer that is sent away may still send until it learns of it.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// linger ends the direction to the peer, and reads for a moment what still comes: to close a
// connection with something unread resets it, which takes our last words from the peer.
func (w *wire) linger() {
	nc, until := w.nc, time.Now().Add(lingerTime)
	if t, ok := nc.(*tls.Conn); ok {
		_ = t.SetWriteDeadline(until)
		_ = t.CloseWrite()
		nc = t.NetConn()
	}
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || nc.SetReadDeadline(until) != nil {
		return
	}
	p := w.pool.get()
	defer w.pool.put(p)
	for total := 0; total < lingerBytes; {
		n, err := nc.Read(p[:cap(p)])
		total += n
		if err != nil {
			return
		}
	}
}
