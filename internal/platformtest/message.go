package platformtest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"strconv"
	"strings"
)

// errFall ends the reading of a message where the script wants the connection to fall.
var errFall = errors.New("script ends the connection in the message")

// ready returns why no message can come now, empty if one can.
func (c *conn) ready() string {
	switch {
	case c.tx == nil:
		return "503 5.5.1 Send MAIL first"
	case len(c.tx.Accepted()) == 0:
		return "554 5.5.1 No valid recipients"
	}
	return ""
}

func (c *conn) data(line string, early bool) bool {
	usual := c.ready()
	if c.tx != nil && c.tx.BDAT {
		usual = "503 5.5.1 DATA after BDAT"
	}
	if usual == "" {
		usual = "354 Start mail input; end with <CRLF>.<CRLF>"
	}
	cmd, r, reply := c.ask("DATA", line, early, usual)
	now := r
	if r.InBody > 0 {
		now = Reaction{Reply: r.Reply, Delay: r.Delay} // the rest comes in the message
	}
	sooner := c.r.Buffered() > 0
	if !c.send(cmd, now, reply) {
		return false
	}
	if code(reply) != 354 || c.tx == nil {
		return true
	}
	if c.flush() != nil {
		return false
	}
	message := newContent(c)
	err := c.readMessage(message, r.InBody)
	message.close(c.tx)
	switch {
	case errors.Is(err, errFall):
		c.abandon() // into the record now, however long the stall
		c.fall(r)
		return false
	case err != nil:
		c.giveUp(err)
		return false
	}
	return c.dot(sooner)
}

// readMessage reads up to the dot that ends the message.
func (c *conn) readMessage(to *content, fallAfter int64) error {
	var last byte
	afterCRLF, afterLF := true, true // the CRLF of the DATA command is the first one
	for {
		c.extend()
		part, err := c.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			to.add(part, false)
			return err
		}
		bare := c.p.o.BareLFEndsData
		if afterCRLF || bare && afterLF {
			if string(part) == ".\r\n" || bare && string(part) == ".\n" {
				return nil
			}
		}
		to.add(part, afterCRLF)
		if fallAfter > 0 && to.wire >= fallAfter {
			return errFall
		}
		if len(part) == 1 { // a CR was the last byte that fitted the buffer
			afterCRLF = part[0] == '\n' && last == '\r'
		} else {
			afterCRLF = bytes.HasSuffix(part, crlf)
		}
		last = part[len(part)-1]
		afterLF = last == '\n'
	}
}

// bdat takes a chunk (RFC 3030 section 2). Its bytes are read whatever the answer.
func (c *conn) bdat(line, args string, early bool) bool {
	if _, ok := c.announced("CHUNKING"); !ok {
		return c.answer("BDAT", line, early, "502 5.5.1 BDAT not available")
	}
	f := strings.Fields(args)
	if len(f) == 0 || len(f) > 2 || len(f) == 2 && !strings.EqualFold(f[1], "LAST") {
		return c.answer("BDAT", line, early, "501 5.5.4 Syntax: BDAT size [LAST]")
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || n < 0 {
		return c.answer("BDAT", line, early, "501 5.5.4 Syntax: BDAT size [LAST]")
	}
	refusal := c.ready()
	var to io.Writer = io.Discard
	if refusal == "" {
		if c.chunks == nil {
			c.tx.BDAT = true
			c.chunks = newContent(c)
		}
		to = c.chunks
	}
	for left := n; left > 0 && err == nil; {
		var copied int64
		c.extend()
		copied, err = io.CopyN(to, c.r, min(left, 32<<10))
		left -= copied
	}
	if refusal == "" {
		c.chunks.close(c.tx)
	}
	if err != nil {
		c.giveUp(err)
		return false
	}
	if refusal != "" {
		return c.answer("BDAT", line, early, refusal)
	}
	if len(f) == 1 {
		cmd, r, reply := c.ask("BDAT", line, early, "250 2.0.0 "+f[0]+" octets received")
		if code(reply)/100 != 2 {
			c.abandon() // further chunks are answered 503
		}
		return c.send(cmd, r, reply)
	}
	return c.dot(early)
}

// dot answers a complete message: once, or with LMTP once for each recipient taken.
func (c *conn) dot(early bool) bool {
	c.tx.Complete = true
	usual := "250 2.0.0 Message accepted"
	if limit := c.sizeLimit(); limit > 0 && c.tx.Size > limit {
		usual = tooLarge
	}
	type answer struct {
		cmd      Command
		reaction Reaction
		reply    string
	}
	var answers []answer
	ask := func(rcpt string) string {
		cmd, r, reply := c.askAbout(c.newCommand(VerbDot, "", early, rcpt), usual)
		answers = append(answers, answer{cmd, r, reply})
		if code(reply)/100 == 2 {
			c.tx.Stored = true
		}
		return reply
	}
	if c.p.o.LMTP {
		for i := range c.tx.Rcpts {
			if r := &c.tx.Rcpts[i]; r.Accepted() {
				r.Result = ask(r.Path)
			}
		}
	} else {
		c.tx.Reply = ask("")
	}
	if c.tx.Stored && c.p.o.Store != nil {
		if err := c.p.o.Store(c.tx); err != nil {
			c.notStored()
			for i := range answers {
				if code(answers[i].reply)/100 == 2 {
					answers[i].reply = localError
				}
			}
		}
	}
	c.tx.Answered = true
	for _, a := range answers {
		if a.reaction.Stall || a.reaction.Drop == DropBefore || a.reaction.Drop == ResetBefore {
			c.tx.Answered = false
		}
	}
	c.end()
	for _, a := range answers {
		if !c.send(a.cmd, a.reaction, a.reply) {
			return false
		}
	}
	return true
}

const localError = "451 4.3.0 Message could not be stored"

// notStored makes refusals of the acceptances in the transaction.
func (c *conn) notStored() {
	c.tx.Stored = false
	if code(c.tx.Reply)/100 == 2 {
		c.tx.Reply = localError
	}
	for i := range c.tx.Rcpts {
		if r := &c.tx.Rcpts[i]; code(r.Result)/100 == 2 {
			r.Result = localError
		}
	}
}

// content collects a message.
type content struct {
	raw    *bytes.Buffer // nil: not kept
	wire   int64         // bytes on the wire
	size   int64
	digest hash.Hash
}

func newContent(c *conn) *content {
	s := &content{digest: sha256.New()}
	if !c.p.o.DiscardBodies {
		s.raw = new(bytes.Buffer)
	}
	return s
}

// add adds bytes from the wire; at the beginning of a line a dot is no content.
func (s *content) add(part []byte, lineBegin bool) {
	s.wire += int64(len(part))
	if s.raw != nil {
		s.raw.Write(part)
	}
	if lineBegin {
		part = bytes.TrimPrefix(part, dot)
	}
	s.size += int64(len(part))
	s.digest.Write(part)
}

// Write adds bytes of a chunk.
func (s *content) Write(b []byte) (int, error) {
	s.add(b, false)
	return len(b), nil
}

// close puts what was collected so far into t.
func (s *content) close(t *Transaction) {
	if s.raw != nil {
		t.Raw = s.raw.Bytes()
	}
	t.Size = s.size
	s.digest.Sum(t.SHA256[:0])
}
