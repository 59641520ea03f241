package storetest

import "testing"

func TestMemory(t *testing.T) { Run(t, memoryOf) }

func TestMemoryEqualsItself(t *testing.T) {
	Compare(t, map[string]func(t *testing.T) *Bed{"another memory": memoryOf})
}
