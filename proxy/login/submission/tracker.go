package submission

// tracker follows the replies that go to a client. A stream that isn't made of replies, such
// as TLS that client and platform have begun between them, is lost for good.
type tracker struct {
	state uint8 // one of those below, or how many digits of a code were seen
	last  bool  // the line is its reply's last one
}

const (
	lineStart    uint8 = 0  // at a reply's start; 1 and 2: digits of its code
	afterCode    uint8 = 3  // what follows says whether more lines come
	inText       uint8 = 4  //
	afterCR      uint8 = 5  //
	nextLine     uint8 = 6  // at the start of a line that is not its reply's first
	nextLineMore uint8 = 7  // 7 and 8: digits of its code
	lost         uint8 = 99 //
)

// Observe implements [login.Tracker].
func (t *tracker) Observe(p []byte) {
	for _, b := range p {
		switch t.state {
		case lineStart, 1, 2:
			t.digit(b, t.state+1)
		case nextLine:
			t.digit(b, nextLineMore)
		case nextLineMore:
			t.digit(b, nextLineMore+1)
		case nextLineMore + 1:
			t.digit(b, afterCode)
		case afterCode:
			switch b {
			case ' ':
				t.state, t.last = inText, true
			case '-':
				t.state, t.last = inText, false
			case '\r':
				t.state, t.last = afterCR, true
			default:
				t.state = lost
			}
		case inText:
			switch b {
			case '\r':
				t.state = afterCR
			case '\n':
				t.state = lost
			}
		case afterCR:
			switch {
			case b != '\n':
				t.state = lost
			case t.last:
				t.state = lineStart
			default:
				t.state = nextLine
			}
		default:
			return
		}
	}
}

func (t *tracker) digit(b byte, next uint8) {
	if b < '0' || b > '9' {
		t.state = lost
		return
	}
	t.state = next
}

// AtStart implements [login.Tracker]: a reply has ended with its last line, and no other has
// begun.
func (t *tracker) AtStart() bool { return t.state == lineStart }
