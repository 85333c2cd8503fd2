package config

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/routing"
)

// decoder puts settings into a Config, field by field, and collects what doesn't fit.
type decoder struct {
	dir string            // of relative file names
	env map[string]string // the environment

	problems Problems
	warnings []Problem
	bad      map[string]bool // keys with a problem: what they hold says nothing

	passwordVariables []string // named by password_env
}

// variable is a value that came from the environment, as text.
type variable string

// word is a string with a fixed set of values.
type word interface{ words() []string }

func valueOf(cfg *Config) reflect.Value { return reflect.ValueOf(cfg).Elem() }

func (d *decoder) problem(p Problem) {
	d.problems = append(d.problems, p)
	d.bad[p.Key] = true
}

// section decodes the keys of one section into a struct.
func (d *decoder) section(key string, in map[string]any, out reflect.Value) {
	known := make(map[string]bool)
	for f := range fields(out.Type()) {
		name := f.key
		field := out.FieldByIndex(f.Index)
		if f.Type == secretType {
			known[name+"_file"], known[name+"_env"] = true, true
			d.secret(join(key, name), in[name+"_file"], in[name+"_env"], field)
			if in[name] != nil {
				known[name] = true
				d.problem(Problem{Key: join(key, name), Want: name + "_file or " + name + "_env",
					Hint: "a secret doesn't stand in this file: name the file or the environment variable that has it"})
			}
			continue
		}
		known[name] = true
		if like := f.Tag.Get("like"); like != "" && in[name] != nil {
			field.Set(reflect.New(f.Type.Elem()))
			field.Elem().Set(out.FieldByIndex(fieldNamed(out.Type(), like).Index))
		}
		if value := in[name]; value != nil {
			d.value(join(key, name), value, field)
			if f.Tag.Get("path") != "" && field.String() != "" && !filepath.IsAbs(field.String()) {
				field.SetString(filepath.Join(d.dir, field.String()))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if !known[name] {
			d.unknown(key, name, slices.Sorted(maps.Keys(known)))
		}
	}
}

// unknown reports a key that doesn't exist. Its value is not shown: it may be a secret.
func (d *decoder) unknown(section, name string, known []string) {
	p := Problem{Key: join(section, name), Want: "a key that exists"}
	if near := nearest(name, known); near != "" {
		p.Hint = "did you mean " + near + "?"
		d.bad[join(section, near)] = true
	} else if section == "" {
		p.Hint = "there are " + strings.Join(known, ", ")
	} else {
		p.Hint = "in " + section + " there are " + strings.Join(known, ", ")
	}
	d.problem(p)
}

// value decodes anything that has a key.
func (d *decoder) value(key string, in any, out reflect.Value) {
	t := out.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		if out.IsNil() {
			out.Set(reflect.New(t.Elem()))
			if s, ok := out.Interface().(interface{ setDefaults() }); ok {
				s.setDefaults()
			}
		}
		d.value(key, in, out.Elem())
	case isSection(t):
		m, ok := in.(map[string]any)
		if !ok {
			d.problem(Problem{Key: key, Value: show(in), Want: "a section with keys", Hint: "there are " + strings.Join(keys(t), ", ")})
			return
		}
		d.section(key, m, out)
	case t.Kind() == reflect.Slice:
		d.list(key, in, out)
	default:
		d.leaf(key, in, out)
	}
}

// list decodes a list of sections, each with its id, or of single values.
func (d *decoder) list(key string, in any, out reflect.Value) {
	elem := out.Type().Elem()
	items, ok := in.([]any)
	if !ok {
		want := "a list, such as [one, two]"
		if isSection(elem) {
			want = `a list of sections, each beginning with "- ` + keys(elem)[0] + `:"`
		}
		d.problem(Problem{Key: key, Value: show(in), Want: want})
		return
	}
	ids := make([]string, len(items))
	if isSection(elem) {
		for i, item := range items {
			if m, ok := item.(map[string]any); ok {
				ids[i], _ = m[keys(elem)[0]].(string)
			}
		}
	}
	list := reflect.MakeSlice(out.Type(), len(items), len(items))
	for i, item := range items {
		v := list.Index(i)
		if s, ok := v.Addr().Interface().(interface{ setDefaults() }); ok {
			s.setDefaults()
		}
		d.value(itemKey(key, ids, i), item, v)
	}
	out.Set(list)
}

// leaf decodes a single value.
func (d *decoder) leaf(key string, in any, out reflect.Value) {
	text, isText := in.(string)
	if v, ok := in.(variable); ok {
		text, isText = string(v), true
	}
	if n, ok := in.(int); ok && n == 0 {
		text = "0" // zero needs no unit
	}
	wrong := func(want string, hint ...string) {
		value := show(in)
		if out.Type() == hashType {
			value = "" // it may be the token itself
		}
		d.problem(Problem{Key: key, Value: value, Want: want, Hint: strings.Join(hint, "")})
	}
	switch p := out.Addr().Interface().(type) {
	case *time.Duration:
		v, err := time.ParseDuration(text)
		if err != nil || v < 0 {
			wrong("a duration with its unit, such as 30s, 5m or 4h")
			return
		}
		*p = v
	case *Size:
		v, err := ParseSize(text)
		if err != nil {
			wrong("a size with its unit, such as 64KiB, 36MiB or 1GiB")
			return
		}
		*p = v
	case *Rate:
		v, err := ParseRate(text)
		if err != nil {
			wrong("a rate with its unit, such as 500B/s or 1MiB/s")
			return
		}
		*p = v
	case *netip.Prefix:
		v, want, hint := parseNet(text)
		if want != "" {
			wrong(want, hint)
			return
		}
		*p = v
	case *Pin:
		v, err := ParsePin(text)
		if err != nil {
			wrong(`"sha256:" and the digest of the certificate's public key in hexadecimal or base64`)
			return
		}
		*p = v
	case *Hash:
		v, err := ParseHash(text)
		if err != nil {
			wrong("64 hexadecimal digits, the SHA-256 of the token", "as sha256sum prints it; the token itself doesn't belong here")
			return
		}
		*p = v
	case *routing.PlatformID:
		v, err := routing.ParsePlatformID(text)
		if err != nil || !isText {
			wrong("1 to 63 characters of a-z, 0-9 and hyphen, not beginning with a hyphen")
			return
		}
		*p = v
	case *routing.AgencyID:
		v, err := routing.ParseAgencyID(text)
		if err != nil || !isText {
			wrong("1 to 63 characters of a-z, 0-9 and hyphen, not beginning with a hyphen")
			return
		}
		*p = v
	case word:
		words := p.words()
		if !isText || !slices.Contains(words, text) {
			hint := ""
			if near := nearest(text, words); near != "" {
				hint = "did you mean " + near + "?"
			}
			wrong(oneOf(words), hint)
			return
		}
		out.SetString(text)
	case *string:
		if !isText {
			wrong("text", "put it in quotes")
			return
		}
		*p = text
	case *bool:
		v, ok := in.(bool)
		if _, isVariable := in.(variable); isVariable {
			v, ok = text == "true", text == "true" || text == "false"
		}
		if !ok {
			wrong("true or false")
			return
		}
		*p = v
	case *int:
		v, ok := in.(int)
		if _, isVariable := in.(variable); isVariable {
			n, err := strconv.Atoi(text)
			v, ok = n, err == nil
		}
		if !ok || v < 0 || v > math.MaxInt32 {
			wrong("a whole number, 0 or more")
			return
		}
		*p = v
	default:
		panic(fmt.Sprintf("config: key %s has type %s, which no case of leaf decodes", key, out.Type()))
	}
}

// parseNet parses a net or a single address.
func parseNet(s string) (p netip.Prefix, want, hint string) {
	const right = "a net or an address, such as 192.0.2.0/24 or 2001:db8::1"
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), "", ""
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return p, right, ""
	}
	if p != p.Masked() {
		return p, right, "did you mean the net " + p.Masked().String() + " or the address " + p.Addr().String() + "?"
	}
	return p, "", ""
}

// show returns a value of the file as it may be printed.
func show(in any) string {
	switch v := in.(type) {
	case string:
		return strconv.Quote(clip(v))
	case variable:
		return strconv.Quote(clip(string(v)))
	case map[string]any, map[any]any:
		return "a section"
	case []any:
		return "a list"
	default:
		return clip(fmt.Sprint(v))
	}
}

// clip shortens a value that was probably pasted by mistake. The name of a file is at most
// 4096 bytes on Linux and has to be readable to the end, so a rooted one isn't cut.
func clip(s string) string {
	limit := 80
	if strings.HasPrefix(s, "/") {
		limit = 4096
	}
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "..."
	}
	return s
}

// oneOf writes words as an enumeration.
func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
