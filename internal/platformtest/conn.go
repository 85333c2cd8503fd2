package platformtest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
)

// writeWithin bounds the writing of answers to a peer that doesn't read.
const writeWithin = time.Minute

// conn is one connection; it belongs to its goroutine.
type conn struct {
	p      *Platform
	net    net.Conn // as accepted
	r      *bufio.Reader
	w      *bufio.Writer
	number int
	port   int
	open   int
	began  time.Time

	helo     string
	tls      bool
	user     string
	proxy    string
	xforward map[string]string
	xclient  map[string]string
	tx       *Transaction // from an accepted MAIL on
	chunks   *content     // of tx, from its first BDAT on
}

func newConn(p *Platform, n net.Conn, number, open int) *conn {
	c := &conn{p: p, net: n, number: number, open: open, began: time.Now()}
	if a, ok := n.RemoteAddr().(*net.TCPAddr); ok {
		c.port = a.Port
	}
	c.attach(n)
	return c
}

// attach reads and writes through n from now on.
func (c *conn) attach(n net.Conn) {
	c.r = bufio.NewReaderSize(n, 64<<10)
	c.w = bufio.NewWriterSize(n, 16<<10)
}

// serve holds the dialogue, to its end.
func (c *conn) serve() {
	defer c.abandon()
	c.extend()
	if c.p.o.Proxy {
		header, err := proxyproto.Read(c.r)
		if err != nil {
			return
		}
		if header.SourceAddr != nil {
			c.proxy = header.SourceAddr.String()
		}
	}
	if c.p.o.ImplicitTLS && !c.startTLS() {
		return
	}
	if !c.banner() {
		return
	}
	for {
		line, early, err := c.readLine()
		if err != nil {
			c.giveUp(err)
			return
		}
		if !c.command(line, early) {
			return
		}
	}
}

// extend sets the deadline of the next read.
func (c *conn) extend() {
	deadline := time.Now().Add(c.p.o.Idle)
	if c.p.o.Lifetime > 0 {
		if end := c.began.Add(c.p.o.Lifetime); end.Before(deadline) {
			deadline = end
		}
	}
	c.net.SetReadDeadline(deadline)
}

// giveUp says why the connection ends, if the reason was a deadline.
func (c *conn) giveUp(err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	reply := "421 4.4.1 Connection timed out"
	lifetime := c.p.o.Lifetime > 0 && time.Since(c.began) >= c.p.o.Lifetime
	if c.p.o.Expired != nil {
		c.p.o.Expired(lifetime)
	}
	if lifetime {
		reply = "421 4.4.2 Connection lasted too long, closing transmission channel"
	}
	c.write(reply)
	c.flush()
}

// readLine returns the next line without its CRLF. Answers are sent when there is no
// further command to read.
func (c *conn) readLine() (line string, early bool, err error) {
	if buffered, _ := c.r.Peek(c.r.Buffered()); bytes.IndexByte(buffered, '\n') >= 0 {
		early = true
	} else if err := c.flush(); err != nil {
		return "", false, err
	}
	c.extend()
	line, err = c.r.ReadString('\n')
	if err != nil {
		return "", false, err
	}
	return strings.TrimSuffix(line, "\r\n"), early, nil
}

func (c *conn) write(reply string) {
	for line := range strings.SplitSeq(reply, "\n") {
		c.w.WriteString(line)
		c.w.WriteString("\r\n")
	}
}

func (c *conn) flush() error {
	c.net.SetWriteDeadline(time.Now().Add(writeWithin))
	return c.w.Flush()
}

// ask makes a command of what the client sent and asks the script about it. The reply is
// the script's or the usual one.
func (c *conn) ask(verb, line string, early bool, usual string) (Command, Reaction, string) {
	return c.askAbout(c.newCommand(verb, line, early, ""), usual)
}

func (c *conn) newCommand(verb, line string, early bool, rcpt string) Command {
	cmd := Command{
		Time: time.Now(), Conn: c.number, Port: c.port,
		Verb: verb, Line: line, Rcpt: rcpt, Early: early, Transaction: c.tx,
	}
	if verb == VerbConnect {
		cmd.Open = c.open
	}
	return cmd
}

func (c *conn) askAbout(cmd Command, usual string) (Command, Reaction, string) {
	cmd.Usual = usual
	r := c.p.react(cmd)
	if r.Reply != "" {
		return cmd, r, r.Reply
	}
	return cmd, r, usual
}

// send carries a reaction out and records the command. It returns false if the
// connection is to end.
func (c *conn) send(cmd Command, r Reaction, reply string) bool {
	delay := r.Delay
	if code(reply)/100 == 5 {
		delay += c.p.o.Tarpit
	}
	if delay > 0 {
		c.flush()
		select {
		case <-time.After(delay):
		case <-c.p.closing:
			return false
		}
	}
	// Recorded before it is sent, so that whoever has the answer finds it in the record.
	if silent := r.Stall || r.Drop == DropBefore || r.Drop == ResetBefore; !silent {
		cmd.Reply = reply
		c.p.recordCommand(cmd)
		c.write(reply)
		if r.Drop == DropAfter || code(reply) == 421 {
			c.flush()
			return false
		}
		return true
	}
	c.p.recordCommand(cmd)
	c.fall(r)
	return false
}

// fall carries out a Drop or a Stall; the connection ends with it.
func (c *conn) fall(r Reaction) {
	c.flush() // what was answered before
	if r.Stall {
		<-c.p.closing
	}
	if tcp, ok := c.net.(*net.TCPConn); ok && r.Drop == ResetBefore {
		tcp.SetLinger(0)
	}
}

// answer asks and sends where the answer has no effect beyond itself.
func (c *conn) answer(verb, line string, early bool, usual string) bool {
	return c.send(c.ask(verb, line, early, usual))
}

func (c *conn) banner() bool {
	text := c.p.o.Banner
	if text == "" {
		text = c.p.o.Hostname + " ESMTP"
		if c.p.o.LMTP {
			text = c.p.o.Hostname + " LMTP"
		}
	}
	return c.answer(VerbConnect, "", false, "220 "+text)
}

// startTLS makes the connection an encrypted one. Bytes that were sent too early are
// taken for part of the handshake.
func (c *conn) startTLS() bool {
	s := tls.Server(&readConn{Conn: c.net, r: c.r}, c.p.o.TLS)
	if err := s.Handshake(); err != nil {
		return false
	}
	c.tls = true
	c.attach(s)
	return true
}

// readConn reads what the reader has in its buffer, too.
type readConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *readConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// abandon ends a transaction that no message ended.
func (c *conn) abandon() {
	if c.tx != nil {
		c.end()
	}
}

// end records the transaction.
func (c *conn) end() {
	c.tx.Ended = time.Now()
	c.p.recordTransaction(c.tx.clone())
	c.tx, c.chunks = nil, nil
}

// announced returns the parameters of an extension, and whether the EHLO reply has it.
func (c *conn) announced(extension string) (string, bool) {
	if extension == "STARTTLS" && (c.tls || c.p.o.TLS == nil) {
		return "", false
	}
	for _, line := range c.p.o.Extensions {
		word, rest, _ := strings.Cut(line, " ")
		if strings.EqualFold(word, extension) {
			return rest, true
		}
	}
	return "", false
}

// sizeLimit returns the announced SIZE, 0 if there is no limit.
func (c *conn) sizeLimit() int64 {
	var n int64
	if s, ok := c.announced("SIZE"); ok {
		fmt.Sscan(s, &n)
	}
	return n
}
