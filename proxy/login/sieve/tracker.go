package sieve

// tracker follows a platform's responses, with their strings. A stream that isn't made of them
// is lost for good.
type tracker struct {
	state trackerState
	left  int64 // of a literal: its size so far, then the bytes that are still to come
	plus  bool  // a literal's size has its plus
	some  bool  // a literal's size has a digit
}

type trackerState uint8

const (
	lineStart trackerState = iota
	inLine
	inQuoted
	afterBackslash
	inSize    // behind { of a literal
	afterSize // behind its }
	sizeCR
	inLiteral
	afterCR
	lost
)

// maxTracked bounds a literal's size; no script is as large.
const maxTracked = 1 << 40

// Observe implements [login.Tracker].
func (t *tracker) Observe(p []byte) {
	for len(p) > 0 && t.state != lost {
		if t.state == inLiteral {
			n := min(int64(len(p)), t.left)
			t.left -= n
			p = p[n:]
			if t.left == 0 {
				t.state = inLine
			}
			continue
		}
		t.state = t.next(p[0])
		p = p[1:]
	}
}

// next returns the state behind a byte that isn't a literal's.
func (t *tracker) next(b byte) trackerState {
	switch t.state {
	case lineStart:
		switch b {
		case 'O', 'o', 'N', 'n', 'B', 'b': // OK, NO, BYE
			return inLine
		case '"', '{':
			return t.inLine(b)
		}
		return lost
	case inLine:
		return t.inLine(b)
	case inQuoted:
		switch {
		case b == '"':
			return inLine
		case b == '\\':
			return afterBackslash
		case b == '\r' || b == '\n' || b == 0:
			return lost
		}
		return inQuoted
	case afterBackslash:
		if b == '"' || b == '\\' {
			return inQuoted
		}
	case inSize:
		switch {
		case b >= '0' && b <= '9' && !t.plus && t.left < maxTracked:
			t.left, t.some = t.left*10+int64(b-'0'), true
			return inSize
		case b == '+' && !t.plus:
			t.plus = true
			return inSize
		case b == '}' && t.some:
			return afterSize
		}
	case afterSize:
		if b == '\r' {
			return sizeCR
		}
	case sizeCR:
		switch {
		case b == '\n' && t.left == 0:
			return inLine
		case b == '\n':
			return inLiteral
		}
	case afterCR:
		if b == '\n' {
			return lineStart
		}
	}
	return lost
}

// inLine returns the state behind a byte outside of strings.
func (t *tracker) inLine(b byte) trackerState {
	switch {
	case b == '"':
		return inQuoted
	case b == '{':
		t.left, t.plus, t.some = 0, false, false
		return inSize
	case b == '\r':
		return afterCR
	case b < ' ' || b >= 0x7f:
		return lost
	}
	return inLine
}

// AtStart implements [login.Tracker].
func (t *tracker) AtStart() bool { return t.state == lineStart }
