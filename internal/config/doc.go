// Package config reads a node's settings: one YAML file and the environment make one
// [Config], checked as a whole.
//
// It promises that a Config which [Load] returned is complete and free of
// contradictions as far as that can be told without connecting anywhere: every key has
// its value or its default, every secret was read, every certificate fits its key. It
// never changes afterwards; a reload makes a new one, and [Diff] says what differs and
// what of it needs a restart.
//
// It refuses keys that it doesn't know, values without or with a wrong unit, settings
// that contradict each other, secrets written into the file, and secret files that
// everybody may read. All that is wrong is reported at once, as [Problems]: each with
// its key, its value and what would be right. There is no half a Config: with one
// problem there is none, so a reload that fails leaves the running settings alone.
//
// [Show] prints a Config with its secrets left out. Config holds the words that
// operators use; internal/daemon turns them into the options of the parts, which read
// no settings themselves. None but this package knows viper.
package config
