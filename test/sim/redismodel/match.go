package redismodel

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// luaMatch is string.match of Lua 5.1, without compiling the pattern each time: half of a
// simulation's time would go there. Patterns with %b and %f, and position captures, are not
// known: scripts of the table have none.
func luaMatch(l *lua.LState) int {
	m := matcher{s: l.CheckString(1), p: l.CheckString(2), l: l}
	if l.GetTop() > 2 {
		l.RaiseError("string.match with a position is not modelled")
	}
	from, anchored := 0, strings.HasPrefix(m.p, "^")
	if anchored {
		from = 1
	}
	for at := 0; at <= len(m.s); at++ {
		m.level = 0
		if end := m.match(at, from); end >= 0 {
			if m.level == 0 {
				l.Push(lua.LString(m.s[at:end]))
				return 1
			}
			for i := range m.level {
				l.Push(lua.LString(m.s[m.begin[i] : m.begin[i]+m.size[i]]))
			}
			return m.level
		}
		if anchored {
			break
		}
	}
	l.Push(lua.LNil)
	return 1
}

const open = -1

// matcher is the state of one match, as in Lua's lstrlib.c.
type matcher struct {
	s, p        string
	l           *lua.LState
	level       int
	begin, size [32]int
}

// match matches the pattern from p on at s, and returns the end or -1.
func (m *matcher) match(s, p int) int {
	for p < len(m.p) {
		switch m.p[p] {
		case '(':
			if strings.HasPrefix(m.p[p:], "()") {
				m.l.RaiseError("position captures are not modelled")
			}
			m.begin[m.level], m.size[m.level] = s, open
			m.level++
			end := m.match(s, p+1)
			if end < 0 {
				m.level--
			}
			return end
		case ')':
			i := m.level - 1
			for i >= 0 && m.size[i] != open {
				i--
			}
			if i < 0 {
				m.l.RaiseError("invalid pattern capture")
			}
			m.size[i] = s - m.begin[i]
			end := m.match(s, p+1)
			if end < 0 {
				m.size[i] = open
			}
			return end
		case '$':
			if p+1 == len(m.p) {
				if s == len(m.s) {
					return s
				}
				return -1
			}
		case '%':
			if p+1 < len(m.p) && (m.p[p+1] == 'b' || m.p[p+1] == 'f' || m.p[p+1] >= '0' && m.p[p+1] <= '9') {
				m.l.RaiseError("pattern %s is not modelled", m.p[p:p+2])
			}
		}
		next := m.classEnd(p)
		suffix := byte(0)
		if next < len(m.p) {
			suffix = m.p[next]
		}
		switch suffix {
		case '?':
			if s < len(m.s) && m.single(m.s[s], p, next) {
				if end := m.match(s+1, next+1); end >= 0 {
					return end
				}
			}
			p = next + 1
			continue
		case '*', '+', '-':
			return m.repeated(s, p, next, suffix)
		}
		if s >= len(m.s) || !m.single(m.s[s], p, next) {
			return -1
		}
		s++
		p = next
	}
	return s
}

func (m *matcher) repeated(s, p, next int, kind byte) int {
	if kind == '-' {
		for {
			if end := m.match(s, next+1); end >= 0 {
				return end
			}
			if s >= len(m.s) || !m.single(m.s[s], p, next) {
				return -1
			}
			s++
		}
	}
	n := 0
	for s+n < len(m.s) && m.single(m.s[s+n], p, next) {
		n++
	}
	least := 0
	if kind == '+' {
		least = 1
	}
	for ; n >= least; n-- {
		if end := m.match(s+n, next+1); end >= 0 {
			return end
		}
	}
	return -1
}

// classEnd returns where the class that begins at p ends.
func (m *matcher) classEnd(p int) int {
	switch m.p[p] {
	case '%':
		if p+1 >= len(m.p) {
			m.l.RaiseError("malformed pattern (ends with '%%')")
		}
		return p + 2
	case '[':
		end := p + 1
		if end < len(m.p) && m.p[end] == '^' {
			end++
		}
		for first := true; ; first = false {
			if end >= len(m.p) {
				m.l.RaiseError("malformed pattern (missing ']')")
			}
			c := m.p[end]
			end++
			if c == '%' {
				end++
			} else if c == ']' && !first {
				return end
			}
		}
	}
	return p + 1
}

func (m *matcher) single(c byte, p, next int) bool {
	switch m.p[p] {
	case '.':
		return true
	case '%':
		return class(c, m.p[p+1])
	case '[':
		return set(c, m.p[p+1:next-1])
	}
	return m.p[p] == c
}

func set(c byte, list string) bool {
	negated := strings.HasPrefix(list, "^")
	list = strings.TrimPrefix(list, "^")
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '%' && i+1 < len(list):
			i++
			if class(c, list[i]) {
				return !negated
			}
		case i+2 < len(list) && list[i+1] == '-':
			if list[i] <= c && c <= list[i+2] {
				return !negated
			}
			i += 2
		case list[i] == c:
			return !negated
		}
	}
	return negated
}

func class(c, kind byte) bool {
	letter := c|0x20 >= 'a' && c|0x20 <= 'z'
	digit := c >= '0' && c <= '9'
	is := false
	switch kind | 0x20 {
	case 'a':
		is = letter
	case 'd':
		is = digit
	case 'l':
		is = c >= 'a' && c <= 'z'
	case 's':
		is = c == ' ' || c >= 9 && c <= 13
	case 'u':
		is = c >= 'A' && c <= 'Z'
	case 'w':
		is = letter || digit
	case 'x':
		is = digit || c|0x20 >= 'a' && c|0x20 <= 'f'
	case 'c':
		is = c < 32 || c == 127
	case 'p':
		is = c > 32 && c < 127 && !letter && !digit
	default:
		return kind == c
	}
	if kind >= 'A' && kind <= 'Z' {
		return !is
	}
	return is
}
