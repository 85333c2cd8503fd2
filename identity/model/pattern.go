package model

import (
	"fmt"
	"strings"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// A pattern is text with names in braces: {primary}, its {local} part and {domain}, {upn},
// {account}, and the account's {netbios} domain.
var patternNames = []string{"{primary}", "{local}", "{domain}", "{upn}", "{account}", "{netbios}"}

func checkPattern(pattern string) error {
	rest := pattern
	for _, name := range patternNames {
		rest = strings.ReplaceAll(rest, name, "")
	}
	if strings.ContainsAny(rest, "{}") {
		return fmt.Errorf("pattern %q: want text with %s in it", pattern, strings.Join(patternNames, ", "))
	}
	return nil
}

// fill fills a pattern in from an object; what the object lacks is an error.
func fill(pattern string, o *directory.Object) (string, error) {
	local, domain := "", ""
	if p := o.Primary(); p != "" {
		local, domain = p.Split()
	}
	values := [...]string{string(o.Primary()), local, domain, o.UPN, o.Account, o.Domain}
	pairs := make([]string, 0, 2*len(values))
	for i, name := range patternNames {
		if values[i] == "" && strings.Contains(pattern, name) {
			return "", fmt.Errorf("pattern %q: it has no %s", pattern, strings.Trim(name, "{}"))
		}
		pairs = append(pairs, name, values[i])
	}
	return strings.NewReplacer(pairs...).Replace(pattern), nil
}

func fillAddress(pattern string, o *directory.Object) (routing.Address, error) {
	s, err := fill(pattern, o)
	if err != nil {
		return "", err
	}
	return routing.ParseAddress(s)
}
