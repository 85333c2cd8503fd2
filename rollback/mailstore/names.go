package mailstore

import (
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// names translates between the names of folders here and on the platform.
type names struct {
	prefix  string   // of the personal namespace, such as "INBOX."
	delim   string   // of levels; empty: not known, or there are none
	foreign []string // prefixes of other users' and shared namespaces

	platform map[string]string // names as they were listed, or made
}

// newNames makes it of what NAMESPACE said; nil: the platform doesn't say.
func newNames(spaces *imap.NamespaceData) *names {
	n := &names{platform: make(map[string]string)}
	if spaces == nil {
		return n
	}
	if len(spaces.Personal) > 0 {
		n.prefix = spaces.Personal[0].Prefix
		n.setDelim(spaces.Personal[0].Delim)
	}
	for _, other := range append(spaces.Other[:len(spaces.Other):len(spaces.Other)], spaces.Shared...) {
		if other.Prefix != "" {
			n.foreign = append(n.foreign, other.Prefix)
		}
	}
	return n
}

func (n *names) setDelim(d rune) {
	if n.delim == "" && d != 0 {
		n.delim = string(d)
	}
}

// slash stands for a "/" within the name of one folder, on platforms where levels are
// separated otherwise.
const slash = "%2F"

// listed returns the name here of a folder that the platform listed; false: it is another
// user's.
func (n *names) listed(platform string) (string, bool) {
	for _, prefix := range n.foreign {
		if strings.HasPrefix(platform, prefix) || platform+n.delim == prefix {
			return "", false
		}
	}
	name := platform
	if n.prefix != "" && len(platform) > len(n.prefix) {
		name = strings.TrimPrefix(platform, n.prefix)
	}
	if n.delim != "" && n.delim != "/" {
		levels := strings.Split(name, n.delim)
		for i, level := range levels {
			levels[i] = strings.ReplaceAll(level, "/", slash)
		}
		name = strings.Join(levels, "/")
	}
	first, rest, below := strings.Cut(name, "/")
	if strings.EqualFold(first, "INBOX") && (!below || platform == name) {
		if name = "INBOX"; below {
			name += "/" + rest
		}
	}
	n.platform[name] = platform
	return name, true
}

// told returns what the platform is told for a folder: as it listed it, else made of its
// levels, with "_" for what it can't have in a name.
func (n *names) told(name string) string {
	if platform, ok := n.platform[name]; ok {
		return platform
	}
	if name == "INBOX" {
		return name
	}
	delim := n.delim
	if delim == "" {
		delim = "/"
	}
	levels := strings.Split(name, "/")
	// A folder above it may have been listed under a name of its own.
	for i := len(levels) - 1; i > 0; i-- {
		if above, ok := n.platform[strings.Join(levels[:i], "/")]; ok {
			return above + delim + n.join(levels[i:], delim)
		}
	}
	return n.prefix + n.join(levels, delim)
}

func (n *names) join(levels []string, delim string) string {
	out := make([]string, len(levels))
	for i, level := range levels {
		level = strings.ReplaceAll(level, slash, "_")
		level = strings.ReplaceAll(level, delim, "_")
		level = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || r == '*' || r == '%' {
				return '_'
			}
			return r
		}, level)
		out[i] = level
	}
	return strings.Join(out, delim)
}

// appendLimit reads the capability APPENDLIMIT=n; 0: it is another.
func appendLimit(capability string) int64 {
	value, ok := strings.CutPrefix(strings.ToUpper(capability), "APPENDLIMIT=")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Alike reports whether two names may be one folder's on two platforms that don't take the
// same characters: case, the encoding of accents, and what platforms replace don't count.
func Alike(a, b string) bool { return plain(a) == plain(b) }

// plain is a name without what platforms differ in.
func plain(name string) string {
	return strings.NewReplacer(".", "_", `\`, "_", "*", "_", "%", "_", "~", "_", "^", "_", "-", "_", " ", "_").Replace(fold(strings.ReplaceAll(name, slash, "_")))
}
