package config

import (
	"fmt"
	"reflect"
	"slices"
)

// Change is a key whose value differs between two Configs.
type Change struct {
	Key      string // such as listeners[mx].address
	Old, New string // as in a file; secrets as references; empty for an item that isn't there
	Restart  bool   // a running node can't take it over
}

// String returns c in one line.
func (c Change) String() string {
	s := fmt.Sprintf("%s: %s -> %s", c.Key, orNone(c.Old), orNone(c.New))
	if c.Restart {
		s += " (needs a restart)"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Diff returns the keys in which next differs from old, in the order of the file's
// sections. The items of a list are compared by their ids, whatever their order.
func Diff(old, next *Config) []Change {
	var changes []Change
	diffSection("", valueOf(old), valueOf(next), false, &changes)
	return changes
}

func diffSection(section string, old, next reflect.Value, restart bool, changes *[]Change) {
	for f := range fields(old.Type()) {
		key := join(section, f.key)
		a, b := old.FieldByIndex(f.Index), next.FieldByIndex(f.Index)
		restart := restart || f.Tag.Get("restart") == "yes"
		if f.Type.Kind() == reflect.Pointer {
			if a.IsNil() != b.IsNil() {
				*changes = append(*changes, Change{Key: key, Old: presence(!a.IsNil()), New: presence(!b.IsNil()), Restart: restart})
			}
			if a.IsNil() || b.IsNil() {
				continue
			}
			a, b = a.Elem(), b.Elem()
		}
		switch {
		case f.Type != secretType && isSection(a.Type()):
			diffSection(key, a, b, restart, changes)
		case a.Kind() == reflect.Slice && isSection(a.Type().Elem()):
			diffList(key, a, b, restart, changes)
		case !equal(a, b):
			c := Change{Key: key, Old: text(a), New: text(b), Restart: restart}
			if f.Tag.Get("restart") == "presence" {
				c.Restart = restart || c.Old == "" || c.New == ""
			}
			if f.Type == secretType && c.Old == c.New {
				c.New += " (another content)"
			}
			*changes = append(*changes, c)
		}
	}
}

// diffList compares two lists of sections. That a listener came or went needs a restart,
// as its id does.
func diffList(key string, old, next reflect.Value, inherited bool, changes *[]Change) {
	restart := inherited
	for f := range fields(old.Type().Elem()) {
		restart = restart || f.Tag.Get("restart") == "yes"
		break
	}
	oldIDs, nextIDs := itemIDs(old), itemIDs(next)
	for i, id := range oldIDs {
		item := itemKey(key, oldIDs, i)
		if j := slices.Index(nextIDs, id); j >= 0 {
			diffSection(item, old.Index(i), next.Index(j), inherited, changes)
		} else {
			*changes = append(*changes, Change{Key: item, Old: presence(true), Restart: restart})
		}
	}
	for j, id := range nextIDs {
		if !slices.Contains(oldIDs, id) {
			*changes = append(*changes, Change{Key: itemKey(key, nextIDs, j), New: presence(true), Restart: restart})
		}
	}
}

func presence(there bool) string {
	if there {
		return "present"
	}
	return ""
}

// itemIDs returns the ids of a list's items.
func itemIDs(list reflect.Value) []string {
	ids := make([]string, list.Len())
	for i := range ids {
		for f := range fields(list.Type().Elem()) {
			ids[i] = list.Index(i).FieldByIndex(f.Index).String()
			break
		}
	}
	return ids
}
