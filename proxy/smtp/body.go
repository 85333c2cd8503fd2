package smtp

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"

	"mailcutover/mail"
)

// errAborted ends a message whose peer gave it up between two chunks.
var errAborted = errors.New("the peer gave the message up")

// body is the message that a session reads: by DATA, or by BDAT (RFC 3030). All its
// reading takes place within the session's calls of Read.
type body struct {
	c       *conn
	scan    scanner
	started bool  // the 354 was sent, or a chunk read from
	ended   bool  // the message's real end was read
	err     error // what Read returns from now on
	lost    error // why the connection can't go on

	limit int64       // octets; 0: none
	size  int64       // octets that the message has so far
	fault *mail.Reply // what the message is refused with, whatever its session says

	chunked bool
	left    int64 // bytes of the current chunk not yet read
	last    bool  // the current chunk is the last
	tail    [3]byte
	tailN   int
	command *command // what the peer sent in the place of a next chunk

	waited time.Duration // time spent waiting for the peer
	before int64         // bytes that the connection had received when the message began
}

// Repaired implements Body.
func (b *body) Repaired() int { return b.scan.repaired }

// Gone implements Body.
func (b *body) Gone() bool { return b.c.gone() }

// Read implements Body.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if !b.started {
		b.started = true
		if !b.chunked {
			b.c.line(354, "Go ahead, end with a dot on a line of its own")
		}
	}
	n, err := b.next(p)
	b.size += int64(n)
	switch {
	case b.limit > 0 && b.size > b.limit:
		b.refuse(replyTooBig)
	case b.scan.repaired > 0 && b.c.srv.opts.BareLineEnds == BareRefuse:
		b.refuse(replyBare)
	case err != nil:
		b.err = err
	case n == 0:
		b.err = io.EOF
	default:
		return n, nil
	}
	return 0, b.err
}

// refuse ends the session's reading; what the peer still sends will be discarded.
func (b *body) refuse(r *mail.Reply) {
	b.fault = r
	b.err = fmt.Errorf("message is refused: %w", r)
}

// next reads the next bytes of the message, and returns none only at its end.
func (b *body) next(p []byte) (int, error) {
	for {
		if b.tailN > 0 {
			n := copy(p, b.tail[:b.tailN])
			b.tailN = copy(b.tail[:], b.tail[n:b.tailN])
			return n, nil
		}
		if b.ended {
			return 0, nil
		}
		if b.chunked && b.left == 0 {
			if b.last {
				b.tailN = b.scan.finish(b.tail[:])
				b.ended = true
				continue
			}
			if err := b.nextChunk(); err != nil {
				return 0, err
			}
			continue
		}
		src := b.c.unread()
		if b.chunked && int64(len(src)) > b.left {
			src = src[:b.left]
		}
		if len(src) == 0 {
			if err := b.fill(); err != nil {
				return 0, b.lose(err)
			}
			continue
		}
		wrote, read, done := b.scan.scan(p, src)
		b.c.take(read)
		b.left -= int64(read) // without meaning for DATA
		b.ended = done
		if wrote > 0 {
			return wrote, nil
		}
	}
}

// lose notes that the connection failed within the message. Its end is never told as
// io.EOF, which would make the message complete.
func (b *body) lose(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.lost = err
	return fmt.Errorf("read message: %w", err)
}

// deadline returns until when we wait for the peer: the read deadline, or the time at
// which he falls below the least data rate.
func (b *body) deadline(now time.Time, wait time.Duration) time.Time {
	l := &b.c.srv.opts.Limits
	if l.DataRate > 0 {
		earned := time.Duration(min((b.c.received-b.before)/l.DataRate, math.MaxInt32)) * time.Second
		wait = min(wait, l.DataGrace+earned-b.waited)
	}
	return now.Add(wait)
}

// fill waits for more bytes of the message.
func (b *body) fill() error {
	start := time.Now()
	err := b.c.fillUntil(b.deadline(start, b.c.srv.opts.Limits.Read))
	b.waited += time.Since(start)
	return err
}

// nextChunk answers a chunk and reads the command of the next (RFC 3030 section 2).
func (b *body) nextChunk() error {
	b.c.line(250, "2.0.0 Chunk received")
	for {
		start := time.Now()
		line, err := b.c.readLine(b.deadline(start, b.c.srv.opts.Limits.Idle))
		b.waited += time.Since(start)
		if err != nil {
			return b.lose(err)
		}
		cmd := parseCommand(line)
		b.c.srv.observe.Command(cmd.name())
		switch cmd.verb {
		case "BDAT":
			left, last, ok := parseChunk(cmd.arg)
			if !ok {
				b.c.violation(cmd, replyChunk)
				return b.lose(errOutOfSync)
			}
			if left == 0 && !last && !b.c.idle() {
				return b.lose(errTooMuch)
			}
			b.left, b.last = left, last
			return nil
		case "NOOP":
			if !b.c.idle() {
				return b.lose(errTooMuch)
			}
			b.c.line(250, "2.0.0 OK")
		case "RSET", "QUIT", "EHLO", "HELO", "LHLO":
			b.command = &command{verb: cmd.verb, arg: append([]byte(nil), cmd.arg...)}
			return errAborted
		default:
			if !b.c.violation(cmd, replySequence) {
				return b.lose(errTooMuch)
			}
		}
	}
}

// discard reads what the session left: up to the end of the message, or of the chunk.
func (b *body) discard() {
	scratch := b.c.pool.in.Get().(*[bufferBytes]byte)
	defer b.c.pool.in.Put(scratch)
	for !b.ended && b.lost == nil && b.command == nil && !(b.chunked && b.left == 0) {
		_, _ = b.next(scratch[:]) // what fails is in b.lost
	}
}

var replyChunk = mail.NewReply(501, 5, 5, 4, "BDAT wants a size and perhaps LAST")

// maxChunkBytes is the largest chunk; 20 digits of size are RFC 3030's, but nothing
// that could be a message has more than this.
const maxChunkBytes = math.MaxInt64 / 2

// parseChunk parses the argument of BDAT.
func parseChunk(arg []byte) (size int64, last, ok bool) {
	digits := 0
	for digits < len(arg) && arg[digits] >= '0' && arg[digits] <= '9' {
		digits++
	}
	if digits == 0 || digits > 19 {
		return 0, false, false
	}
	size, err := strconv.ParseInt(string(arg[:digits]), 10, 64)
	if err != nil || size > maxChunkBytes {
		return 0, false, false
	}
	rest := arg[digits:]
	if len(rest) == 0 {
		return size, false, true
	}
	word := 0
	for word < len(rest) && rest[word] == ' ' {
		word++
	}
	if word == 0 || len(rest)-word != 4 || !equalFold("LAST", rest[word:]) {
		return 0, false, false
	}
	return size, true, true
}

// isTimeout reports whether err says that a deadline passed.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
