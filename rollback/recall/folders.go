package recall

import (
	"strings"

	"mailcutover/rollback/mailstore"
)

// matcher finds To's folder for each of From's: by role, by name, or by a name that differs
// in what platforms don't take; below a folder with another name on To, there.
type matcher struct {
	from, to []mailstore.Folder
	byName   map[string]int // in to
	want     []string       // by index in from
}

func newMatcher(from, to []mailstore.Folder) *matcher {
	m := &matcher{from: from, to: to, byName: make(map[string]int), want: make([]string, len(from))}
	for i := range to {
		m.byName[to[i].Name] = i
	}
	for i := range from {
		m.want[i] = m.find(from[i].Name, from[i].Role)
	}
	return m
}

// find returns what To's folder is called, or would be.
func (m *matcher) find(name string, role mailstore.Role) string {
	if role != mailstore.RoleNone {
		for i := range m.to {
			if m.to[i].Role == role {
				return m.to[i].Name
			}
		}
	}
	if _, ok := m.byName[name]; ok {
		return name
	}
	cut := strings.LastIndexByte(name, '/')
	if cut >= 0 {
		above := name[:cut]
		name = m.find(above, m.roleOf(above)) + name[cut:]
		if _, ok := m.byName[name]; ok {
			return name
		}
	}
	alike := ""
	for i := range m.to {
		if mailstore.Alike(m.to[i].Name, name) {
			if alike != "" {
				return name // which of them can't be said
			}
			alike = m.to[i].Name
		}
	}
	if alike != "" {
		return alike
	}
	return name
}

func (m *matcher) roleOf(name string) mailstore.Role {
	for i := range m.from {
		if m.from[i].Name == name {
			return m.from[i].Role
		}
	}
	return mailstore.RoleNone
}

// back returns From's folder for one of To's; -1: there is none.
func (m *matcher) back(to string) int {
	for i := range m.want {
		if m.want[i] == to {
			return i
		}
	}
	return -1
}
