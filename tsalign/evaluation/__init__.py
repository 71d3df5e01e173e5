"""How good is the policy, and how good is the student: win rates, agreement, exact match."""
