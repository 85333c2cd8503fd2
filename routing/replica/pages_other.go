//go:build !linux

package replica

import "mailcutover/routing"

func largePages(*routing.State, []*routing.Mapping) {}
