package smtp

import "bytes"

// place is where a scanner stands in the message: which bytes it has taken without yet
// knowing what they mean.
type place uint8

const (
	placeLineStart place = iota // behind a CRLF, or at the message's start
	placeLine                   // within a line
	placeRepaired               // behind a repaired line end
	placeCR                     // behind a CR that waits for its LF
	placeDot                    // behind a dot at a line's start
	placeDotCR                  // behind such a dot and a CR
)

// scanner turns the bytes of a message as they arrive, cut anywhere, into those of the
// message: every line end is CRLF, the transparency dot of RFC 5321 section 4.5.2 is gone.
//
// Only a line that is a dot between two real CRLFs ends a message. A bare CR or LF is
// repaired, and what follows is not a line start to the dot rule: a peer that takes
// the bare one for a line end and one that doesn't both get the same message from us.
type scanner struct {
	dots     bool // DATA: a dot ends the message; BDAT: its length does
	place    place
	oweLF    bool // dst was full behind the CR of a repaired line end
	wasCR    bool // the CR that waits, or the last CRLF, stands behind a bare CR
	doubtful bool // done, and the CRLF before the last dot stood behind a bare CR
	repaired int
}

// scan reads from src and writes to dst, as far as the shorter of the two goes. It
// returns how many bytes it wrote and read, and whether the message's end was read.
func (s *scanner) scan(dst, src []byte) (wrote, read int, done bool) {
	for {
		if s.oweLF {
			if wrote == len(dst) {
				return wrote, read, false
			}
			dst[wrote] = '\n'
			wrote++
			s.oweLF = false
		}
		if read == len(src) || wrote == len(dst) {
			return wrote, read, false
		}
		switch s.place {
		case placeLineStart, placeLine, placeRepaired:
			if s.dots && s.place == placeLineStart && src[read] == '.' {
				s.place = placeDot
				read++
				continue
			}
			n := s.lines(dst[wrote:], src[read:])
			wrote += copy(dst[wrote:], src[read:read+n])
			read += n
			if read == len(src) || wrote == len(dst) {
				continue
			}
			switch src[read] {
			case '\r':
				s.place, s.wasCR = placeCR, false
				read++
			case '\n':
				wrote += s.repair(dst[wrote:])
				read++
			}
		case placeCR:
			if src[read] == '\n' {
				wrote += s.lineEnd(dst[wrote:])
				s.place = placeLineStart
				read++
				continue
			}
			wrote += s.repair(dst[wrote:])
			read += s.secondCR(src[read])
		case placeDot:
			if src[read] == '\r' {
				s.place = placeDotCR
				read++
			} else {
				s.place, s.wasCR = placeLine, false
			}
		case placeDotCR:
			if src[read] == '\n' {
				s.doubtful = s.wasCR
				return wrote, read + 1, true
			}
			wrote += s.repair(dst[wrote:])
			read += s.secondCR(src[read])
		}
	}
}

// lines returns how many bytes of src can be copied as they are: whole lines, then as
// much of a line as holds no line end. It leaves s.place behind them.
func (s *scanner) lines(dst, src []byte) int {
	src = src[:min(len(src), len(dst))]
	n := 0
	for n < len(src) {
		if s.dots && s.place == placeLineStart && src[n] == '.' {
			return n
		}
		line := src[n:]
		lf := bytes.IndexByte(line, '\n')
		if lf >= 0 {
			line = line[:lf]
		}
		cr := bytes.IndexByte(line, '\r')
		switch {
		case lf >= 0 && cr == lf-1 && cr >= 0:
			n += lf + 1
			s.place, s.wasCR = placeLineStart, false
		case cr >= 0: // bare, or cut off from its LF
			if cr > 0 {
				s.place = placeLine
			}
			return n + cr
		default:
			if len(line) > 0 {
				s.place = placeLine
			}
			return n + len(line)
		}
	}
	return n
}

// lineEnd writes CRLF to dst, which has room for one byte at least.
func (s *scanner) lineEnd(dst []byte) int {
	dst[0] = '\r'
	if len(dst) == 1 {
		s.oweLF = true
		return 1
	}
	dst[1] = '\n'
	return 2
}

// repair writes CRLF for a bare CR or LF.
func (s *scanner) repair(dst []byte) int {
	s.repaired++
	s.place = placeRepaired
	return s.lineEnd(dst)
}

// secondCR looks at the byte that showed a CR to be bare: if it is a CR itself it
// waits for an LF in turn. It returns how many bytes it took.
func (s *scanner) secondCR(c byte) int {
	if c != '\r' {
		return 0
	}
	s.place, s.wasCR = placeCR, true
	return 1
}

// finish ends a message whose length ended it: it writes what is still owed, and a
// CRLF where the last line has none. dst needs room for three bytes.
func (s *scanner) finish(dst []byte) (wrote int) {
	if s.oweLF {
		dst[0] = '\n'
		wrote, s.oweLF = 1, false
	}
	switch s.place {
	case placeCR:
		wrote += s.repair(dst[wrote:])
	case placeLine:
		wrote += s.lineEnd(dst[wrote:])
	}
	s.place = placeLineStart
	return wrote
}
