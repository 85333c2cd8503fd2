package imap

import "bytes"

// tracker follows what a platform sends to a client after its login, so that BYE is said
// between two responses only (RFC 9051 section 7). It is certain as long as every line is one
// that a server sends; after one that isn't, as in a compressed stream (RFC 4978), it never is
// again. The zero value is at a line's start.
//
// It takes literals by their count and lines by their end; of a line it looks at the
// beginning and the end only.
type tracker struct {
	literal int64 // bytes of a literal that are still to come
	lost    bool
	within  bool // within a response: in a line, or in a literal or behind one
	inLine  bool // within a line: head and tail are of it
	first   bool // the line is the first of its response
	headLen uint8
	tailLen uint8
	head    [headSize]byte // how the line begins
	tail    [tailSize]byte // how it ends so far
}

// Sizes of what is kept of a line: a tag and a status, as far as a client of ours can have
// it; and the longest "{n}" with the byte before it, and CR.
const (
	headSize = maxTag + len(" OK ") + 32
	tailSize = 1 + len("{9223372036854775807}") + 1
)

// Observe implements [login.Tracker].
func (t *tracker) Observe(p []byte) {
	for len(p) > 0 && !t.lost {
		if t.literal > 0 {
			n := min(t.literal, int64(len(p)))
			t.literal -= n
			p = p[n:]
			continue
		}
		i := bytes.IndexByte(p, '\n')
		if !t.inLine && i > 0 {
			// The usual case: a whole line, which needs no copy.
			t.first = !t.within
			t.line(p[:min(i, headSize)], p[max(0, i-tailSize):i])
			p = p[i+1:]
			continue
		}
		if !t.inLine {
			t.inLine, t.first, t.within = true, !t.within, true
			t.headLen, t.tailLen = 0, 0
		}
		part := p
		if i >= 0 {
			part = p[:i]
		}
		t.keep(part)
		if i < 0 {
			return
		}
		t.line(t.head[:t.headLen], t.tail[:t.tailLen])
		p = p[i+1:]
	}
}

// AtStart implements [login.Tracker].
func (t *tracker) AtStart() bool { return !t.lost && !t.within }

// keep keeps of a part of a line what line will look at.
func (t *tracker) keep(part []byte) {
	t.headLen += uint8(copy(t.head[t.headLen:], part))
	if len(part) >= tailSize {
		t.tailLen = uint8(copy(t.tail[:], part[len(part)-tailSize:]))
		return
	}
	if over := int(t.tailLen) + len(part) - tailSize; over > 0 {
		t.tailLen = uint8(copy(t.tail[:], t.tail[over:t.tailLen]))
	}
	t.tailLen += uint8(copy(t.tail[t.tailLen:], part))
}

// line goes on behind a line, of which head is the beginning and tail the end, CR included.
func (t *tracker) line(head, tail []byte) {
	t.inLine = false
	tail, ok := bytes.CutSuffix(tail, []byte{'\r'})
	if !ok {
		t.lost = true
		return
	}
	text := false
	if t.first {
		if text, ok = response(head); !ok {
			t.lost = true
			return
		}
	}
	t.within = false
	if len(tail) == 0 || tail[len(tail)-1] != '}' {
		return
	}
	// A literal follows, unless the line's reader could think otherwise: in a text, and
	// behind anything but what a string can stand behind.
	header := bytes.LastIndexByte(tail, '{')
	if text || header < 1 || bytes.IndexByte([]byte(" (~"), tail[header-1]) < 0 {
		t.lost = true
		return
	}
	size, ask, ok := literalSize(tail[header:])
	if !ok || !ask {
		t.lost = true
		return
	}
	t.literal, t.within = size, true
}

// response tells whether a server's response begins like this, and whether it is one with
// a text for people. A tagged one that speaks of compression is none: what follows it is
// no line any more (Dovecot: "OK Begin compression.", Cyrus: "OK DEFLATE active").
func response(head []byte) (text, ok bool) {
	head = bytes.TrimSuffix(head, []byte{'\r'})
	switch {
	case len(head) == 0:
		return false, false
	case head[0] == '+':
		return true, len(head) == 1 || head[1] == ' '
	case head[0] == '*':
		if len(head) < 3 || head[1] != ' ' {
			return false, false
		}
		if head[2] >= '0' && head[2] <= '9' { // most are: "* 1 FETCH"
			return false, true
		}
		word, _, _ := bytes.Cut(head[2:min(len(head), 2+len("PREAUTH "))], []byte{' '})
		return isStatus(word) || bytes.EqualFold(word, []byte("BYE")), isAstringChar(head[2])
	}
	tag, rest, found := bytes.Cut(head, []byte{' '})
	if !found || len(tag) > maxTag || !all(tag, isTagChar) {
		return false, false
	}
	word, rest, _ := bytes.Cut(rest, []byte{' '})
	if !isStatus(word) {
		return false, false
	}
	rest = bytes.ToUpper(rest)
	return true, !bytes.Contains(rest, []byte("COMPRESS")) && !bytes.Contains(rest, []byte("DEFLATE"))
}

// isStatus tells whether a word is OK, NO or BAD.
func isStatus(word []byte) bool {
	return bytes.EqualFold(word, []byte("OK")) || bytes.EqualFold(word, []byte("NO")) || bytes.EqualFold(word, []byte("BAD"))
}
