from pydantic import BaseModel


class Task(BaseModel):
    number: int


class Totals(BaseModel):
    rounds: int = 0
    sum: int = 0
