package config

import (
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	secretType   = reflect.TypeFor[Secret]()
	hashType     = reflect.TypeFor[Hash]()
	durationType = reflect.TypeFor[time.Duration]()
)

// field is a field of a section, with its key.
type field struct {
	reflect.StructField
	key string
}

// fields yields the fields of a section that have keys, in order.
func fields(t reflect.Type) iter.Seq[field] {
	return func(yield func(field) bool) {
		for i := range t.NumField() {
			f := t.Field(i)
			if key := f.Tag.Get("config"); key != "" && !yield(field{f, key}) {
				return
			}
		}
	}
}

// fieldNamed returns the field that has a key; it is a mistake in our code if none has.
func fieldNamed(t reflect.Type, key string) field {
	for f := range fields(t) {
		if f.key == key {
			return f
		}
	}
	panic("config: " + t.String() + " has no key " + key)
}

// keys returns the keys of a section as they stand in a file, in order.
func keys(t reflect.Type) []string {
	var names []string
	for f := range fields(t) {
		if f.Type == secretType {
			names = append(names, f.key+"_file", f.key+"_env")
		} else {
			names = append(names, f.key)
		}
	}
	return names
}

// isSection reports whether t is a struct with keys of its own.
func isSection(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for range fields(t) {
		return true
	}
	return false
}

// join returns the key of name within a section.
func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}

func index(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// itemKey returns the key of a list's item: by its id, or by its place where it has none
// or an earlier item has the same.
func itemKey(list string, ids []string, i int) string {
	if ids[i] == "" {
		return index(list, i)
	}
	for _, earlier := range ids[:i] {
		if earlier == ids[i] {
			return index(list, i)
		}
	}
	return list + "[" + ids[i] + "]"
}

// nearest returns the one of the words that s is most likely a misspelling of, or "".
func nearest(s string, words []string) string {
	if len(s) > 64 {
		return ""
	}
	best, bestDistance := "", 3
	if utf8.RuneCountInString(s) < 6 {
		bestDistance = 2
	}
	for _, w := range words {
		d := distance(fold(s), fold(w))
		if d < bestDistance && d < len(w) {
			best, bestDistance = w, d
		}
	}
	return best
}

func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(s))
}

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// shortDuration writes a duration without parts that are zero: 5m, not 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
